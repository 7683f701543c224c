"""Whole runs of the off-policy methods: through the command, stopped and taken up again, and shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import call, saved_recording
from whole_runs import AskedToEnd, inputs_of

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import Preempted
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import METHODS, find_method
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.runner import run_stage

NAMES = [name for name in METHODS if find_method(name).pipeline == "offpolicy"]
SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "train.steps": 40,
    "train.batch_size": 32,
    "train.evaluate_every": 20,
    "finetune.env_steps": 160,
    "finetune.warmup_steps": 60,
    "finetune.round_steps": 20,
    "finetune.evaluate_every": 80,
    "finetune.evaluate_episodes": 3,
    "evaluate.episodes": 4,
}
MODEL = {"denoiser_width": 16, "denoiser_depth": 1, "denoiser_updates": 20, "made_rows": 60}
ENERGIES = {"energy_updates": 5, "energy_rows": 8, "sampling_steps": 4}
RATIO = {"ratio_updates": 10}
OWN: dict[str, dict[str, Any]] = {  # of methods whose defaults take minutes
    "opt": RATIO,
    "opt_spot": RATIO,
    "cfdg": MODEL,
    "cfdg_pex": MODEL,
    "cfdg_apl": MODEL | {"recent_rows": 80},
    "edis": MODEL | ENERGIES,
    "edis_cql": MODEL | ENERGIES,
}
Capture = pytest.CaptureFixture[str]


def overrides(name: str) -> list[str]:
    own = getattr(find_method(name).settings(dataset="none"), name)
    widths = {field: [16] for field in type(own).model_fields if field.endswith("hidden")}
    settings = SETTINGS | {f"{name}.{key}": value for key, value in (widths | OWN.get(name, {})).items()}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def arguments(name: str, dataset: str, output: Path, *more: str) -> list[str]:
    sets = [part for text in overrides(name) for part in ("--set", text)]
    told = ["--method", name, "--dataset", dataset, "--output", str(output), "--tracking", "none", *sets]
    return ["run", "--json", "--quiet", *told, *more]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_recording(tmp_path_factory.mktemp("recorded"))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_scores_and_shows_what_it_made(
    name: str, dataset: str, tmp_path: Path, capsys: Capture
) -> None:
    code, out, err = call(capsys, *arguments(name, dataset, tmp_path, "--runner", "inline"))
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["method"] == name
    assert list(summary["stages"]) == ["prepare-dataset", "train-offline", "finetune-online", "report"]
    assert [point[0] for point in summary["online_curve"]] == [0, 80, 160]
    assert set(summary["scores"]) == {"offline", "online"}
    folder = tmp_path / summary["run_id"]
    page = (folder / "report.html").read_text()
    assert "Offline learning" in page and "Fine-tuning online" in page
    assert f"unio4 run --method {name} --dataset" in page
    same = ("--episodes", "4", "--seed", "1000003", "--json", "--quiet")
    code, out, _ = call(capsys, "evaluate", str(folder), *same)
    assert json.loads(out)["mean_return"] == summary["scores"]["online"]["mean_return"]
    code, out, _ = call(capsys, "report", str(folder))
    assert code == 0


def test_the_offline_half_alone_shares_the_dataset(dataset: str, tmp_path: Path, capsys: Capture) -> None:
    """Through the compiled pipeline, each stage a process; the rows are prepared once for all methods."""
    root = ("--artifact-root", str(tmp_path / "root"))
    first, second = NAMES[:2]
    code, out, err = call(capsys, *arguments(first, dataset, tmp_path, "--finetune", "never", *root))
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert list(summary["stages"]) == ["prepare-dataset", "train-offline", "report"]
    assert (set(summary["scores"]), summary["dip"]) == ({"offline"}, None)
    code, out, _ = call(capsys, *arguments(second, dataset, tmp_path, "--runner", "inline", *root))
    assert {name for name, stage in json.loads(out)["stages"].items() if stage["reused"]} == {
        "prepare-dataset"
    }


def test_a_method_without_a_gate_says_so(dataset: str, tmp_path: Path, capsys: Capture) -> None:
    for runner in ("inline", "process"):
        more = ("--finetune", "improved", "--runner", runner)
        code, _, err = call(capsys, *arguments(NAMES[0], dataset, tmp_path, *more))
        line = "error: finetune is improved, but this method has no gate; expected always or never\n"
        assert (code, err) == (2, line)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--method", "ipl"), "method is 'ipl'; expected one of unio4"),
        (("--method", "iql", "--set", "improve.steps=3"), "unknown key improve.steps"),
        (("--set", "method=7"), "method is 7; expected one of unio4"),
        (
            ("--method", "iql", "--set", "iql.expectile=2"),
            "iql.expectile is 2; expected a number",
        ),
    ],
)
def test_a_wrong_method_or_key_is_one_line(given: tuple[str, ...], line: str, capsys: Capture) -> None:
    code, out, err = call(capsys, "config", "show", "--dataset", "minari:x/y-v0", *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


@pytest.mark.parametrize("name", NAMES)
def test_stages_go_on_with_the_same_bits(name: str, dataset: str, tmp_path: Path) -> None:
    config = load_config(dataset=dataset, method=name, overrides=[*overrides(name), "checkpoint_seconds=0"])
    prepare, *training = find_method(name).steps[:3]
    whole: dict[str, ArtifactRef] = {}
    seldom = config.model_copy(update={"checkpoint_seconds": 60.0})  # nor do checkpoints change a bit
    with StageContext(tmp_path / "whole") as context:
        for step in (prepare, *training):
            whole[step.kind] = run_stage(step, seldom, inputs_of(step.inputs, whole), context).ref
    for step in training:
        inputs = inputs_of(step.inputs, whole)
        for attempt in range(2):  # asked to end twice, each time on another machine
            context = StageContext(
                tmp_path / "root", cache=tmp_path / f"disk-{attempt}", preemption=AskedToEnd(3)
            )
            with context, pytest.raises(Preempted):
                run_stage(step, config, inputs, context)
        with StageContext(tmp_path / "root", cache=tmp_path / "last") as context:
            outcome = run_stage(step, config, inputs, context)
        assert (outcome.ref.digest, outcome.resumed) == (whole[step.kind].digest, True)
