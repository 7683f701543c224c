"""``unio4 submit`` and ``unio4 sweep --runner kfp`` with KFP's own client, against its recorded API.

Recorded: kfp_api.py, and the tasks that a server lists, in the shapes of published runs of KFP 2: beside each
task its driver and executor, graphs and the run itself, in no order, nearly all of them with children.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_api import RecordedKfp, make_server
from tiny_runs import call

from unio4_lib.pipeline import cluster
from unio4_lib.pipeline.spec import PipelineSpec, compiled

DATASET = "minari:mujoco/hopper/medium-v0"
SUBMIT = ("submit", "--dataset", DATASET, "--artifact-root", "s3://b/p")
NEVER = "0001-01-01T00:00:00Z"


@pytest.fixture
def kfp() -> RecordedKfp:
    return RecordedKfp()


@pytest.fixture
def endpoint(kfp: RecordedKfp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The recorded KFP's address; nobody's own settings of KFP's client, and no time between looks."""
    client = pytest.importorskip("kfp").Client
    monkeypatch.setattr(client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(cluster, "FOLLOW_SECONDS", 0.0)
    server = make_server(kfp)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", address)
    yield address
    server.shutdown()
    server.server_close()


def step(state: str, **stages: str) -> dict[str, Any]:
    """A run as the server tells it: ``stages`` in the order in which they began, __1 for a further member."""
    tasks = [task("root", state), task("root-driver", "SUCCEEDED"), task("unio4-x7k2p", state)]
    for place, (key, stood) in enumerate(stages.items()):
        name = key.partition("__")[0].replace("_", "-")
        driver = "FAILED" if stood == "DRIVER_FAILED" else "SUCCEEDED"
        tasks.append(task(f"{name}-driver", driver, place))
        if driver == "SUCCEEDED":
            tasks += [task(name, stood, place), task("executor", stood, place, children=0)]
    return {"state": state, "run_details": {"task_details": tasks[::-1]}}


def task(name: str, state: str, place: int = 0, children: int = 1) -> dict[str, Any]:
    ended = NEVER if state in ("PENDING", "RUNNING") else f"2026-01-01T00:{place:02}:30Z"
    found: dict[str, Any] = {"display_name": name, "state": state, "end_time": ended}
    found |= {"start_time": f"2026-01-01T00:{place:02}:00Z", "task_id": f"id-{name}-{place}"}
    return found | ({"child_tasks": [{"pod_name": "unio4-x7k2p-1"}]} if children else {})


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_a_run_arrives_as_it_was_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.token = "secret-token"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret-token")
    asked = (*SUBMIT, "--namespace", "team", "--service-account", "unio4-pipeline", "--run-name", "mine")
    asked += ("--seed", "3", "--set", "improve.steps=77", "--set", "behavior.hidden=[8, 8]", "--no-reuse")
    code, out, err = call(capsys, *asked, "--tracking", "https://m.example", "--experiment", "e")
    assert (code, err) == (0, "")
    [run] = kfp.stored["runs"]
    assert out == f"{endpoint}/#/runs/details/{run['run_id']}\n"
    assert run["runtime_config"]["parameters"] == {
        "dataset": DATASET,
        "preset": "quick",
        "seed": 3,
        "overrides": ["behavior.hidden=[8, 8]", "improve.steps=77"],
        "artifact_root": "s3://b/p",
        "mlflow_tracking_uri": "https://m.example",
        "experiment": "e",
        "run_name": "mine",
        "finetune": "always",
        "reuse": False,
    }
    spec, platform = yaml.safe_load_all(compiled("unio4").read_text())
    assert run["pipeline_spec"] == {"pipeline_spec": spec, "platform_spec": platform}
    assert (run["display_name"], run["service_account"]) == ("mine", "unio4-pipeline")
    [experiment] = kfp.stored["experiments"]
    assert (experiment["display_name"], experiment["namespace"]) == ("e", "team")
    assert run["experiment_id"] == experiment["experiment_id"]

    call(capsys, *asked, "--experiment", "e")
    assert len(kfp.stored["runs"]) == 2
    assert len(kfp.stored["experiments"]) == 1

    call(capsys, *SUBMIT, "--namespace", "kubeflow")  # KFP's client takes this name for none
    assert kfp.stored["experiments"][1]["namespace"] == "kubeflow"


def test_collecting_runs_where_pytorch_is(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    source = "collect:InvertedPendulum-v5?level=random&steps=600"
    code, _, err = call(capsys, "submit", "--dataset", source, "--artifact-root", "s3://b/p")
    assert code == 0, err
    image = PipelineSpec.load(compiled("unio4")).image("finetune-online")
    assert kfp.stored["runs"][0]["runtime_config"]["parameters"]["prepare_image"] == image


def test_a_run_is_followed_to_its_good_end(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.course = [
        {"state": "PENDING"},
        step("RUNNING", prepare_dataset="PENDING"),
        step("RUNNING", prepare_dataset="SUCCEEDED", fit_critics="RUNNING", clone_behavior="RUNNING"),
        None,  # the server restarts; the run does not care
        step("RUNNING", prepare_dataset="SUCCEEDED", fit_critics="SUCCEEDED", clone_behavior="RUNNING"),
        step("SUCCEEDED", prepare_dataset="SUCCEEDED", fit_critics="SUCCEEDED", report_2="SUCCEEDED"),
    ]
    code, out, err = call(capsys, *SUBMIT, "--wait")
    assert code == 0, err
    assert out == f"{endpoint}/#/runs/details/{kfp.stored['runs'][0]['run_id']}\n"
    assert lines(err) == [
        "prepare-dataset: pending",
        "prepare-dataset: succeeded",
        "fit-critics: running",
        "clone-behavior: running",
        "fit-critics: succeeded",
        "report: succeeded",
    ]


@pytest.mark.parametrize("how", ["FAILED", "DRIVER_FAILED"])
def test_a_failed_run_names_its_stage(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str, how: str
) -> None:
    omitted = {"improve_policy": "RUNTIME_STATE_UNSPECIFIED", "close_run": "SUCCEEDED"}
    kfp.course = [step("FAILED", prepare_dataset="SUCCEEDED", fit_critics=how, **omitted)]
    code, out, err = call(capsys, *SUBMIT, "--run-name", "mine", "--wait")
    assert code == 1
    assert lines(err) == [
        "prepare-dataset: succeeded",
        "fit-critics: failed",
        "close-run: succeeded",
        f"error: run mine has failed at fit-critics; see {out.strip()}",
    ]


def test_on_a_terminal_there_is_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kfp: RecordedKfp, endpoint: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what is captured for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    kfp.course = [
        step("RUNNING", prepare_dataset="SUCCEEDED", fit_critics="RUNNING"),
        step("CANCELED", prepare_dataset="SUCCEEDED", fit_critics="CANCELED"),
    ]
    code, _, err = call(capsys, *SUBMIT, "--wait")
    assert code == 1
    for words in ("run running", "run canceled", "stage", "seconds", "prepare-dataset", "running", "30"):
        assert words in err, words
    assert "executor" not in err
    assert "has canceled; see" in err


def test_a_sweep_arrives_and_is_counted(
    capsys: pytest.CaptureFixture[str], kfp: RecordedKfp, endpoint: str
) -> None:
    kfp.course = [
        step("RUNNING", prepare_dataset="SUCCEEDED", prepare_dataset__1="RUNNING"),
        step("FAILED", prepare_dataset="SUCCEEDED", prepare_dataset__1="FAILED", leaderboard="SUCCEEDED"),
    ]
    asked = ("--dataset", DATASET, "--dataset", "d4rl:s3://b/x.hdf5", "--seeds", "0,7")
    code, out, err = call(
        capsys, "sweep", "--runner", "kfp", *asked, "--artifact-root", "s3://b/p", "--name", "s", "--wait"
    )
    assert code == 1
    [run] = kfp.stored["runs"]
    assert out == f"{endpoint}/#/runs/details/{run['run_id']}\n"
    given = run["runtime_config"]["parameters"]
    sources = (DATASET, "d4rl:s3://b/x.hdf5")
    assert given.pop("members") == [{"dataset": one, "seed": seed} for one in sources for seed in (0, 7)]
    assert (given["sweep"], given["artifact_root"], given["overrides"]) == ("s", "s3://b/p", [])
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "unio4-sweep"
    assert lines(err) == [
        "prepare-dataset: 1 succeeded, 1 running",
        "prepare-dataset: 1 succeeded, 1 failed",
        "leaderboard: succeeded",
        f"error: run s has failed at prepare-dataset; see {out.strip()}",
    ]


def test_a_server_that_stays_away_is_not_waited_for_forever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kfp: RecordedKfp, endpoint: str
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.0)
    kfp.course = [step("RUNNING"), None, None]
    code, _, err = call(capsys, *SUBMIT, "--wait")
    assert code == 2
    assert lines(err) == [f"error: {endpoint}: Kubeflow Pipelines answers 503 Service Unavailable"]


@pytest.mark.parametrize(
    ("arguments", "server", "words"),
    [
        (["--endpoint", "http://127.0.0.1:9"], {}, "http://127.0.0.1:9: no Kubeflow Pipelines answers there"),
        (
            ["--endpoint", "kfp.example"],
            {},
            "--endpoint kfp.example: expected a URL with http:// or https://",
        ),
        ([], {"token": "right"}, "answers 401 Unauthorized: Unauthenticated: the token is not known"),
        (["--token", "wrong"], {"token": "right"}, "answers 401 Unauthorized"),
        (["--token", "wrong", "--namespace", "n"], {"token": "right"}, "answers 401 Unauthorized"),
        ([], {"login_page": "<html>Sign in</html>"}, "not as Kubeflow Pipelines does (with a login page?)"),
        (["--pipeline", str(compiled("sweep"))], {}, "pipeline unio4-sweep: no parameter dataset; expected"),
        (["--pipeline", "none.yaml"], {}, "none.yaml: cannot be read"),
        (["--artifact-root", "here"], {}, "--artifact-root: a cluster needs a place that all its nodes see"),
        (["--seed", "x"], {}, "Invalid value for '--seed'"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_run(
    capsys: pytest.CaptureFixture[str],
    kfp: RecordedKfp,
    endpoint: str,
    arguments: list[str],
    server: dict[str, str],
    words: str,
) -> None:
    for name, value in server.items():
        setattr(kfp, name, value)
    began = time.monotonic()
    code, out, err = call(capsys, *SUBMIT, *arguments)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert time.monotonic() - began < 15  # the SDK alone asks a server that refuses for 25 seconds
    assert kfp.stored["runs"] == []
