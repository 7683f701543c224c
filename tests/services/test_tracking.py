"""Numbers on a real MLflow server: all of them, once, in the right run, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mlflow_process import MlflowServer
from sender_here import LONGEST_SECONDS, send_here

from unio4_lib.tracking import spool
from unio4_lib.tracking.tracker import Tracker, make_tracker

pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from unio4_lib.tracking.delivery import Delivery, make_database
from unio4_lib.tracking.sender import deliver_spool

STAGE, PRINT = "clone-behavior", "f" * 64


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is noticed at once; one that is busy is waited for."""
    for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "120"), ("BACKOFF_FACTOR", "0")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Iterator[str]:
    """A run key, and an experiment, that no other test has."""
    yield f"{request.node.name[:80]}-{time.time_ns()}".replace("[", "-").replace("]", "")


def tracker_of(server: MlflowServer, key: str, folder: Path, **more: Any) -> Tracker:
    return make_tracker(server.uri, experiment=key, run_name="a run", run_key=key, spool=folder, **more)


def runs_of(server: MlflowServer, key: str) -> dict[str, Run]:
    """The runs of an experiment by stage; no stage is there twice."""
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(key)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    named = {run.data.tags["unio4.stage"]: run for run in found}
    assert len(named) == len(found)
    return named


def history(server: MlflowServer, run: Run, name: str) -> list[tuple[int, float]]:
    metrics = MlflowClient(server.uri).get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in metrics)


def test_everything_is_where_it_belongs(mlflow_server: MlflowServer, key: str, tmp_path: Path) -> None:
    figure = tmp_path / "figure.svg"
    figure.write_text("<svg/>")
    with tracker_of(mlflow_server, key, tmp_path / "spool") as tracker, tracker.run() as run:
        run.log_params({"seed": 3, "behavior": {"steps": 40}})
        with tracker.stage(STAGE, PRINT) as stage:
            for step in range(1100):
                stage.log_metrics({f"{STAGE}/loss": step / 2, f"{STAGE}/kl": float("nan")}, step)
            stage.set_tags({"unio4.version": "1"})
            stage.log_dataset("minari:x", source="minari:x", digest="a" * 64, profile={"rows": 7})
            stage.log_artifact(figure, "figures")
        with pytest.raises(ValueError, match="broken"), tracker.stage("fit-critics", PRINT):
            raise ValueError("broken")
        with pytest.raises(KeyboardInterrupt), tracker.stage("fit-dynamics", PRINT):
            raise KeyboardInterrupt
        run.log_metrics({"scores/offline": 3.5}, 0)
    runs = runs_of(mlflow_server, key)
    states = {name: run.info.status for name, run in runs.items()}
    assert states == {
        "run": "FINISHED",
        STAGE: "FINISHED",
        "fit-critics": "FAILED",
        "fit-dynamics": "KILLED",
    }
    parent, child = runs["run"], runs[STAGE]
    assert parent.info.run_name == "a run"
    assert parent.data.params == {"seed": "3", "behavior.steps": "40"}
    assert parent.data.metrics == {"scores/offline": 3.5}
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs.values()} == {None, parent.info.run_id}
    assert history(mlflow_server, child, f"{STAGE}/loss") == [(step, step / 2) for step in range(1100)]
    assert len(history(mlflow_server, child, f"{STAGE}/kl")) == 1100
    assert child.data.tags["unio4.version"] == "1"
    assert runs["fit-critics"].data.tags["unio4.error"] == "ValueError: broken"
    (dataset,) = (used.dataset for used in child.inputs.dataset_inputs)
    assert (dataset.name, dataset.digest, dataset.profile) == ("minari:x", "a" * 36, '{"rows": 7}')
    place = MlflowClient(mlflow_server.uri).download_artifacts(child.info.run_id, "figures/figure.svg")
    assert Path(place).read_text() == "<svg/>"
    assert spool.count_waiting(tmp_path / "spool") == 0


def fill(folder: Path, server: MlflowServer, key: str, steps: range) -> None:
    """A spool as a process leaves it that logs these steps of one stage and ends."""
    tracker = tracker_of(server, key, folder)
    folder.mkdir(parents=True, exist_ok=True)
    tracker.target.save(folder)  # type: ignore[attr-defined]
    with tracker._outbox(  # type: ignore[attr-defined]
        f"{STAGE}-x", stage=STAGE, fingerprint=PRINT
    ) as stage:
        for step in steps:
            stage.log_metrics({f"{STAGE}/loss": float(step)}, step)


def test_a_retry_goes_on_in_the_same_run(mlflow_server: MlflowServer, key: str, tmp_path: Path) -> None:
    # The second process is on another machine, and begins at a checkpoint before the first one's end.
    for name, steps in (("first", range(0, 50)), ("second", range(30, 80))):
        fill(tmp_path / name, mlflow_server, key, steps)
        assert deliver_spool(tmp_path / name)["trouble"] is None
    runs = runs_of(mlflow_server, key)
    assert set(runs) == {"run", STAGE}
    assert history(mlflow_server, runs[STAGE], f"{STAGE}/loss") == [(step, float(step)) for step in range(80)]


def test_waiting_at_the_end_is_explained(
    mlflow_server: MlflowServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for patience, explained in ((0.0, True), (LONGEST_SECONDS, False)):
        monkeypatch.setattr("unio4_lib.tracking.tracker.PATIENCE_SECONDS", patience)
        folder = tmp_path / str(patience)
        with tracker_of(mlflow_server, key, folder, say=said.append) as tracker, tracker.run() as run:
            run.log_metrics({"run/seconds": 1.0}, step=0)
        assert [line.startswith("tracking: the last numbers are on their way") for line in said] == (
            [True] if explained else []
        )
        said.clear()


def test_a_sender_that_never_gets_the_processor_is_replaced_at_the_end(
    mlflow_server: MlflowServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unio4_lib.tracking.tracker.PATIENCE_SECONDS", 0.5)
    said: list[str] = []
    with tracker_of(mlflow_server, key, tmp_path, say=said.append) as tracker, tracker.run() as run:
        assert tracker._sender is not None
        os.kill(tracker._sender.pid, signal.SIGSTOP)
        run.log_metrics({"run/seconds": 1.0}, step=0)
    assert len(said) == 1
    assert spool.count_waiting(tmp_path) == 0


def test_two_runs_that_begin_together_make_one_database(key: str, tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    names = ("one", "two", "three")
    with ExitStack() as stack:
        for name in names:
            tracker = make_tracker(
                f"sqlite:///{database}", experiment=key, run_name=name, run_key=name, spool=tmp_path / name
            )
            stack.enter_context(stack.enter_context(tracker).run()).log_metrics({"run/seconds": 1.0}, step=0)
    assert [spool.count_waiting(tmp_path / name) for name in names] == [0, 0, 0]
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(key)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in found) == sorted(names)
    # One that came too late may have been ended while it made its own: hidden, and removed some time after.
    shown = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".mlflow.db-")}
    assert shown == {*names, "mlflow.db"}


def test_a_run_that_is_sent_late_began_when_it_began(
    mlflow_server: MlflowServer, key: str, tmp_path: Path
) -> None:
    began = time.time_ns() // 1_000_000
    fill(tmp_path, mlflow_server, key, range(5))
    ended = time.time_ns() // 1_000_000
    time.sleep(0.05)
    assert deliver_spool(tmp_path)["trouble"] is None
    runs = runs_of(mlflow_server, key)
    assert began <= runs["run"].info.start_time <= ended
    assert began <= runs[STAGE].info.start_time <= runs[STAGE].info.end_time <= ended


def test_a_database_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("hard links are not supported")

    monkeypatch.setattr("os.link", refused)
    make_database(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


def test_delivering_again_changes_nothing(mlflow_server: MlflowServer, key: str, tmp_path: Path) -> None:
    fill(tmp_path, mlflow_server, key, range(50))
    assert deliver_spool(tmp_path)["trouble"] is None
    (tmp_path / f"{STAGE}-x.sent").unlink()  # a crash before it was written down
    assert deliver_spool(tmp_path)["trouble"] is None
    runs = runs_of(mlflow_server, key)
    assert history(mlflow_server, runs[STAGE], f"{STAGE}/loss") == [(step, float(step)) for step in range(50)]


def test_an_answer_that_is_lost_doubles_nothing(
    mlflow_server: MlflowServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, mlflow_server, key, range(50))
    log_batch, lost = MlflowClient.log_batch, []

    def log_and_lose(client: MlflowClient, *arguments: Any) -> None:
        log_batch(client, *arguments)
        if not lost:
            lost.append(True)
            raise ConnectionError("the answer never came")

    monkeypatch.setattr(MlflowClient, "log_batch", log_and_lose)
    assert "never came" in deliver_spool(tmp_path)["trouble"]
    assert deliver_spool(tmp_path)["trouble"] is None
    run = runs_of(mlflow_server, key)[STAGE]
    assert history(mlflow_server, run, f"{STAGE}/loss") == [(step, float(step)) for step in range(50)]


def test_what_mlflow_refuses_is_put_aside(
    mlflow_server: MlflowServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_here(monkeypatch)
    said: list[str] = []
    with (
        tracker_of(mlflow_server, key, tmp_path, say=said.append) as tracker,
        tracker.stage(STAGE, PRINT) as stage,
    ):
        stage.log_params({"seed": 1})
        stage.log_metrics({"a name with $ and #": 1.0}, 0)
        stage.log_metrics({"good": 1.0}, 0)
        stage.log_params({"seed": 2})  # a setting never changes
    run = runs_of(mlflow_server, key)[STAGE]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"good": 1.0}
    assert run.data.params["seed"] in ("1", "2")
    assert "$ and #" in (tmp_path / "refused.txt").read_text()
    assert any("MLflow refused" in line for line in said)


def test_two_stages_and_two_processes_at_once(mlflow_server: MlflowServer, key: str, tmp_path: Path) -> None:
    def process(number: int) -> None:
        with tracker_of(mlflow_server, key, tmp_path / str(number)) as tracker:
            threads = [
                threading.Thread(target=one_stage, args=(tracker, f"stage-{number}-{i}")) for i in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def one_stage(tracker: Tracker, name: str) -> None:
        with tracker.stage(name, PRINT) as stage:
            for step in range(300):
                stage.log_metrics({"loss": float(step)}, step)

    both = [threading.Thread(target=process, args=(number,)) for number in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    runs = runs_of(mlflow_server, key)
    assert set(runs) == {"run", "stage-0-0", "stage-0-1", "stage-1-0", "stage-1-1"}
    for name, run in runs.items():
        if name != "run":
            assert history(mlflow_server, run, "loss") == [(step, float(step)) for step in range(300)]


def test_a_training_that_is_killed(mlflow_server: MlflowServer, key: str, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from unio4_lib.tracking.tracker import make_tracker\n"
        "uri, key, folder = sys.argv[1:]\n"
        "names = dict(experiment=key, run_name='a', run_key=key)\n"
        "with make_tracker(uri, spool=Path(folder), **names) as tracker, tracker.run():\n"
        "    with tracker.stage('clone-behavior', 'f' * 64) as stage:\n"
        "        for step in range(100): stage.log_metrics({'loss': step}, step)\n"
        "        os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, mlflow_server.uri, key, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + LONGEST_SECONDS  # its sender lives on for a moment
    while spool.count_waiting(tmp_path) or not has_ended(mlflow_server, key):
        assert time.monotonic() < deadline, (tmp_path / "sender.log").read_text()
        time.sleep(0.2)
    runs = runs_of(mlflow_server, key)
    assert {run.info.status for run in runs.values()} == {"KILLED"}
    assert len(history(mlflow_server, runs[STAGE], "loss")) == 100


def has_ended(server: MlflowServer, key: str) -> bool:
    known = MlflowClient(server.uri).get_experiment_by_name(key) is not None
    return known and all(run.info.end_time for run in runs_of(server, key).values())


@pytest.mark.parametrize("by_kfp", [False, True])
def test_everything_nests_under_a_run_that_was_set(
    mlflow_server: MlflowServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_kfp: bool
) -> None:
    send_here(monkeypatch)
    client = MlflowClient(mlflow_server.uri)
    outer = client.create_run(client.create_experiment(key), tags={"unio4.stage": "outer"})
    outside = {"MLFLOW_RUN_ID": outer.info.run_id}
    if by_kfp:  # its plug-in makes a run for each task; what all stages share is the one above
        monkeypatch.setenv("KFP_POD_NAME", "unio4-x7k2p-1")
        above = {"mlflow.parentRunId": outer.info.run_id, "unio4.stage": "of-the-plug-in"}
        nested = client.create_run(outer.info.experiment_id, tags=above)
        outside = {"MLFLOW_RUN_ID": nested.info.run_id}
    tracker = make_tracker(
        mlflow_server.uri,
        experiment="another",
        run_name="a",
        run_key=key,
        spool=tmp_path,
        environ=outside,
    )
    with tracker, tracker.run() as run:
        run.log_metrics({"scores/offline": 1.0}, 0)
        with tracker.stage(STAGE, PRINT):
            pass
    runs = runs_of(mlflow_server, key)
    assert set(runs) - {"of-the-plug-in"} == {"outer", STAGE}
    assert runs[STAGE].info.run_name == f"a/{STAGE}"
    assert runs[STAGE].data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert runs["outer"].data.metrics == {"scores/offline": 1.0}
    assert runs["outer"].info.status == "RUNNING"  # whoever began it ends it
    assert client.get_experiment_by_name("another") is None


def test_a_server_that_dies_and_comes_back_has_everything(
    mlflow_server: MlflowServer, key: str, tmp_path: Path
) -> None:
    said: list[str] = []
    with tracker_of(mlflow_server, key, tmp_path / "one", say=said.append) as tracker:
        with tracker.stage(STAGE, PRINT) as stage:
            for step in range(600):
                stage.log_metrics({"loss": float(step)}, step)
                if step in (200, 400):
                    wait_until_something_arrives(mlflow_server, key)
                if step == 400:
                    mlflow_server.kill()
        with tracker.stage("fit-critics", PRINT) as stage:
            stage.log_metrics({"loss": 1.0}, 1)
    # The run is over, and the server still away.
    assert any("is kept in" in line or "are kept in" in line for line in said)
    waiting = spool.count_waiting(tmp_path / "one")
    assert waiting > 0
    assert "does not answer" in deliver_spool(tmp_path / "one")["trouble"]
    assert spool.count_waiting(tmp_path / "one") == waiting
    mlflow_server.start()
    # The next run brings along what was left.
    with tracker_of(mlflow_server, f"{key}-next", tmp_path / "two", leftovers=tmp_path) as tracker:
        deadline = time.monotonic() + LONGEST_SECONDS
        while spool.count_waiting(tmp_path / "one"):
            assert time.monotonic() < deadline, (tmp_path / "two" / "sender.log").read_text()
            time.sleep(0.2)
    runs = runs_of(mlflow_server, key)
    assert {name: run.info.status for name, run in runs.items() if name != "run"} == {
        STAGE: "FINISHED",
        "fit-critics": "FINISHED",
    }
    assert history(mlflow_server, runs[STAGE], "loss") == [(step, float(step)) for step in range(600)]


def wait_until_something_arrives(server: MlflowServer, key: str) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        experiment = MlflowClient(server.uri).get_experiment_by_name(key)
        if experiment is not None and STAGE in runs_of(server, key):
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_parents_made_at_once_become_one(
    mlflow_server: MlflowServer, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, mlflow_server, key, range(1))
    first, second = (
        Delivery(mlflow_server.uri, spool.Target.load(tmp_path / name), tmp_path / name) for name in "ab"
    )
    create = MlflowClient.create_run

    def create_beside_another(client: MlflowClient, *arguments: Any, **named: Any) -> Run:
        monkeypatch.setattr(MlflowClient, "create_run", create)
        first.parent_id(began=2000)
        return create(client, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_run", create_beside_another)
    # Made second: that it began earlier does not count, the first may have looked before it was there.
    assert second.parent_id(began=1000) == first.parent_id(began=2000)
    assert set(runs_of(mlflow_server, key)) == {"run"}
