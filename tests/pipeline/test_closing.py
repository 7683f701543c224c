"""How a run ends in MLflow: KFP tells a state in its own words and no reason; the stage tells that."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sender_here import send_here

from unio4_lib.artifacts.s3 import StoreUnavailable
from unio4_lib.artifacts.store import open_store
from unio4_lib.cli import component as cli_component
from unio4_lib.stages import failures
from unio4_lib.stages import sweep as sweeps

EXPERIMENT = "closing"


@pytest.fixture
def key(tmp_path: Path) -> str:
    """What identifies the run, and its name."""
    return tmp_path.name


@pytest.fixture
def root(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An artifact root, seen from a pod of a cluster."""
    monkeypatch.setenv("UNIO4_RUN_KEY", key)
    monkeypatch.setenv("KFP_POD_NAME", "unio4-x7k2p-system-container-impl-1")
    monkeypatch.setenv("UNIO4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cli_component, "TERMINATION_LOG", tmp_path / "termination-log")
    send_here(monkeypatch)
    (tmp_path / "root").mkdir()
    return str(tmp_path / "root")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def runs(uri: str) -> dict[str, Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def prepare(root: str, source: str, sweep: str = "") -> str:
    told = {"artifact_root": root, "tracking": "none", "experiment": EXPERIMENT, "run_name": "mine"}
    return cli_component.resolve_run(source, "unio4", "quick", 0, [], **told, sweep=sweep, reuse=True)


def fail_to_prepare(root: str, capsys: pytest.CaptureFixture[str], sweep: str = "") -> str:
    """A stage that ends with bad input; the line that it says."""
    run, output = prepare(root, "transitions:not/there", sweep), SimpleNamespace(path="x", metadata={})
    with pytest.raises(SystemExit) as ended:
        cli_component.run_component("prepare-dataset", run, {}, output, SimpleNamespace())
    assert ended.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


@pytest.mark.parametrize("state", ["COMPLETE", "SUCCEEDED"])  # a cluster's word, and kfp.local's
def test_a_good_run_is_finished(root: str, key: str, uri: str, state: str) -> None:
    failures.record(open_store(root), key, "a first attempt that failed")
    cli_component.close_tracking(uri, EXPERIMENT, key, None, root, state)
    run = runs(uri)[key]
    assert run.info.status == "FINISHED"
    assert "unio4.error" not in run.data.tags
    assert failures.reason(open_store(root), key) is None


def test_the_reason_of_a_failed_stage_is_that_of_the_run(
    root: str, key: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fail_to_prepare(root, capsys)
    assert "not/there" in line
    assert cli_component.TERMINATION_LOG.read_text() == line
    cli_component.close_tracking(uri, EXPERIMENT, key, None, root, "FAILED")
    run = runs(uri)[key]
    assert run.info.status == "FAILED"
    assert run.data.tags["unio4.error"] == line
    assert line in capsys.readouterr().err  # where whoever follows the run can read it


@pytest.mark.parametrize("state", ["FAILED", "RUNNING"])
def test_a_pod_that_could_say_nothing_is_no_success(root: str, key: str, uri: str, state: str) -> None:
    cli_component.close_tracking(uri, EXPERIMENT, key, None, root, state)
    run = runs(uri)[key]
    assert run.info.status == "FAILED"
    assert run.data.tags["unio4.error"] == f"the pipeline did not end well; KFP says {state}"


def test_what_may_pass_does_not_hide_the_reason(root: str, key: str) -> None:
    store = open_store(root)
    failures.record(store, key, "clone-behavior: asked to end", final=False)
    failures.record(store, key, "fit-critics: diverged")
    failures.record(store, key, "fit-dynamics: asked to end", final=False)
    assert failures.reason(store, key) == "fit-critics: diverged"


def test_without_tracking_there_is_nothing_to_close(
    root: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fail_to_prepare(root, capsys)
    cli_component.close_tracking("none", EXPERIMENT, key, None, root, "FAILED")
    assert line in capsys.readouterr().err


def test_on_this_machine_nothing_is_left_in_the_root(
    root: str, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KFP_POD_NAME")
    fail_to_prepare(root, capsys)
    assert failures.reason(open_store(root), key) is None
    assert not cli_component.TERMINATION_LOG.exists()


def test_members_of_a_sweep_that_failed_are_closed(
    root: str, key: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fail_to_prepare(root, capsys, sweep="sw")
    member = sweeps.Member("sw", "transitions:not/there", 0, "unio4")
    outputs = [SimpleNamespace(path=str(tmp_path / name)) for name in ("page", "table")]
    members = [{"dataset": member.dataset, "seed": 0}]
    with pytest.raises(SystemExit):  # no member has a result
        cli_component.write_leaderboard(members, "sw", root, uri, EXPERIMENT, *outputs, SimpleNamespace())
    run = runs(uri)[member.name]
    assert run.info.status == "FAILED"
    assert run.data.tags["unio4.error"] == line
    assert run.data.tags["unio4.run_key"] == f"{key} {member.digest}"  # as its stages have it


def test_a_member_that_is_a_run_of_its_own_is_closed(
    root: str, key: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fail_to_prepare(root, capsys, sweep=key)
    member = sweeps.Member(key, "transitions:not/there", 0, "unio4")
    told = (member.sweep, member.dataset, member.seed, member.method)
    cli_component.close_tracking(uri, EXPERIMENT, "", told, root, "FAILED")
    run = runs(uri)[member.name]
    assert (run.info.status, run.data.tags["unio4.error"]) == ("FAILED", line)
    assert run.data.tags["unio4.run_key"] == f"{key} {member.digest}"


@pytest.mark.parametrize("on_cluster", [True, False])
def test_a_store_that_is_away_is_waited_for_on_a_cluster(
    root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_cluster: bool
) -> None:
    """Elsewhere whoever started the stage tries again."""
    if not on_cluster:
        monkeypatch.delenv("KFP_POD_NAME")
    monkeypatch.setattr(cli_component, "PAUSES", (0.0, 0.0))
    answers: list[Any] = [StoreUnavailable("away"), StoreUnavailable("still away"), "made"]

    def work() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    if on_cluster:
        assert cli_component._patiently("report", work) == "made"
        assert "report: still away; once more in 0 s" in capsys.readouterr().err
    else:
        with pytest.raises(StoreUnavailable, match="away"):
            cli_component._patiently("report", work)


def test_own_credentials_win_over_those_of_kfps_plug_in() -> None:
    plugin = {"MLFLOW_TRACKING_TOKEN": "theirs", "MLFLOW_TRACKING_AUTH": "kubernetes"}
    alone = dict(plugin)
    cli_component.use_own_credentials(alone)
    assert alone == plugin
    both = {**plugin, "UNIO4_MLFLOW_TRACKING_USERNAME": "unio4", "UNIO4_MLFLOW_TRACKING_PASSWORD": "secret"}
    cli_component.use_own_credentials(both)
    assert both["MLFLOW_TRACKING_USERNAME"] == "unio4"
    assert both["MLFLOW_TRACKING_PASSWORD"] == "secret"
    assert not plugin.keys() & both.keys()
