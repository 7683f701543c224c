"""What a whole run shows in MLflow, and a second one that computes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from broken_inputs import edited, saved
from mlflow_process import MlflowServer
from sender_here import send_here
from tiny_runs import call, run_arguments, saved_recording
from whole_runs import STAGE_NAMES

from unio4_lib.tracking import spool

pytest.importorskip("mlflow", reason="no mlflow: pip install 'unio4[tracking]'")

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

Capture = pytest.CaptureFixture[str]
EXPERIMENT = "whole runs"


def client_of(server: MlflowServer) -> MlflowClient:
    return MlflowClient(server.uri)


def tracked_run(server: MlflowServer, key: str) -> tuple[Run, dict[str, Run]]:
    """The run of that key, and those of its stages."""
    client = client_of(server)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`unio4.run_key` = '{key}'")
    (parent,) = (run for run in found if run.data.tags["unio4.stage"] == "run")
    stages = {run.data.tags["unio4.stage"]: run for run in found if run is not parent}
    assert len(stages) == len(found) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in stages.values()} == {parent.info.run_id}
    return parent, stages


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def arguments(
    mlflow_server: MlflowServer, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Of ``unio4 run``, with tracking."""
    send_here(monkeypatch)
    words = run_arguments(dataset, tmp_path / "runs")
    words[words.index("--tracking") + 1] = mlflow_server.uri
    return [*words, "--experiment", EXPERIMENT, "--json"]


def test_a_run_and_its_repetition(
    mlflow_server: MlflowServer, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    summaries = []
    for _ in range(2):
        code, out, err = call(capsys, *arguments)
        assert code == 0, err
        summaries.append(json.loads(out))
    first, second = (tracked_run(mlflow_server, summary["run_id"]) for summary in summaries)
    for (parent, stages), summary in zip((first, second), summaries, strict=True):
        assert set(stages) == set(STAGE_NAMES)
        assert {run.info.status for run in (parent, *stages.values())} == {"FINISHED"}
        assert spool.count_waiting(tmp_path / "runs" / summary["run_id"] / "tracking") == 0
        assert not (tmp_path / "runs" / summary["run_id"] / "tracking" / spool.REFUSED).exists()
    check_the_run(mlflow_server, *first, summaries[0])
    # What was reused shows the same curves.
    assert {run.data.tags["unio4.reused"] for run in second[1].values()} == {"True"}
    for name in STAGE_NAMES[1:]:
        curves = [curves_of(mlflow_server, stages[name]) for _, stages in (first, second)]
        assert curves[1].items() <= curves[0].items()
        assert set(curves[0]) - set(curves[1]) == {"costs/seconds", "costs/peak_memory_bytes"}


def curves_of(server: MlflowServer, run: Run) -> dict[str, list[tuple[int, float]]]:
    """All points of all metrics; none is there twice."""
    client, curves = client_of(server), {}
    for name in run.data.metrics:
        points = client.get_metric_history(run.info.run_id, name)
        curves[name] = sorted((point.step, point.value) for point in points)
        assert len({step for step, _ in curves[name]}) == len(points), name
    return curves


def check_the_run(server: MlflowServer, parent: Run, stages: dict[str, Run], summary: dict[str, Any]) -> None:
    assert parent.data.params["behavior.steps"] == "40"
    for name, score in summary["scores"].items():
        assert parent.data.metrics[f"scores/{name}"] == pytest.approx(score["mean_return"])
    assert parent.data.metrics["gate/checks"] == summary["gate"]["checks"]
    assert len(parent.outputs.model_outputs) == 1
    files = {file.path for file in client_of(server).list_artifacts(parent.info.run_id)}
    assert "summary.json" in files
    finetuning = curves_of(server, stages["finetune-online"])["finetune-online/return"]
    expected = {steps: mean for steps, mean, _ in summary["online_curve"]}
    assert dict(finetuning) == pytest.approx(expected)
    # Beside the scores of other runs, and under names that say whose stage it is.
    assert dict(curves_of(server, parent)["online/return"]) == pytest.approx(expected)
    assert {run.info.run_name for run in stages.values()} == {
        f"{parent.info.run_name}/{name}" for name in stages
    }
    improvement = curves_of(server, stages["improve-policy"])
    accepted = [value for name, points in improvement.items() if "/accepted/" in name for _, value in points]
    assert sum(accepted) == summary["gate"]["accepted"]
    assert len(accepted) == summary["gate"]["checks"]
    cloning = stages["clone-behavior"]
    assert cloning.data.params["behavior.steps"] == "40"
    assert cloning.data.tags["unio4.artifact"].endswith(
        summary["stages"]["clone-behavior"]["artifact_digest"]
    )
    (dataset,) = (used.dataset for used in cloning.inputs.dataset_inputs)
    assert dataset.name == summary["dataset"]["id"]
    assert json.loads(dataset.profile)["transitions"] == summary["dataset"]["transitions"]


def test_bad_input_is_said_and_the_run_has_failed(
    mlflow_server: MlflowServer, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    broken = [*arguments, "--run-name", "broken"]
    broken[broken.index("--dataset") + 1] = saved(tmp_path, **edited("rewards", 7, float("nan")))
    code, _, err = call(capsys, *broken)
    assert code == 2
    assert err.count("error:") == 1
    client = client_of(mlflow_server)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'broken'")
    assert run.info.status == "FAILED"
    assert "rewards" in run.data.tags["unio4.error"]


def test_stages_by_hand_share_a_run(
    mlflow_server: MlflowServer, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    shared = [*arguments[arguments.index("--tracking") :], "--artifact-root", str(tmp_path / "store")]
    shared += ["--dataset", arguments[arguments.index("--dataset") + 1], "--run-key", str(tmp_path)]
    data = ["stage", "prepare-dataset", "--output", str(tmp_path / "dataset.json")]
    clone = ["stage", "clone-behavior", "--input", f"dataset={tmp_path / 'dataset.json'}"]
    for words in (data, clone, clone):  # the last is a retry
        code, _, err = call(capsys, *words, *shared)
        assert code == 0, err
    parent, stages = tracked_run(mlflow_server, str(tmp_path))
    assert set(stages) == {"prepare-dataset", "clone-behavior"}
    assert {run.info.status for run in stages.values()} == {"FINISHED"}
    curves_of(mlflow_server, stages["clone-behavior"])
    assert parent.info.status == "RUNNING"  # the report ends it
