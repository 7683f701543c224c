"""``unio4 run`` through the pipeline: the same bits as in one process, failures in one line, sweeps."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from broken_inputs import edited, saved
from tiny_runs import SETTINGS, call, run_arguments, saved_recording, set_arguments

from unio4_lib.cli.sweep import parse_seeds
from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config
from unio4_lib.runs import local_run, local_sweep
from unio4_lib.runs.arguments import overrides
from unio4_lib.runs.forks import programs
from unio4_lib.runs.launch import Launch, ProcessLauncher
from unio4_lib.runs.spec import compiled
from unio4_lib.stages.context import CACHE_VARIABLE


def through_the_pipeline(arguments: list[str]) -> list[str]:
    return ["process" if argument == "inline" else argument for argument in arguments]


class OneFlippedBit(ProcessLauncher):
    """Injects a fault: the critics are damaged when the stage that needs them begins, as by a bad disk."""

    def __init__(self, root: Path) -> None:
        self.root, self.damaged = root, False

    def command(self, image: str, command: Sequence[str], environment: Mapping[str, str]) -> Launch:
        if "improve_policy" in command and not self.damaged:
            (path,) = self.root.rglob("critics.safetensors")
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            self.damaged = True
        return super().command(image, command, environment)


@pytest.mark.slow
def test_processes_give_the_bits_of_one_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dataset: str, tmp_path: Path
) -> None:
    """Also if an artifact is damaged meanwhile; a second run computes nothing, and ``--finetune never`` stays
    offline, either way.
    """
    fault = OneFlippedBit(tmp_path / "several" / "artifacts")
    monkeypatch.setattr(local_run, "make_launcher", lambda *_: fault)
    inline = run_arguments(dataset, tmp_path / "one")
    code, out, _ = call(capsys, *inline, "--json")
    assert code == 0
    expected = json.loads(out)

    several = through_the_pipeline(run_arguments(dataset, tmp_path / "several"))
    code, out, err = call(capsys, *several, "--json")
    assert code == 0, err
    assert "improve-policy: critics is damaged, is made again: " in err
    found = json.loads(out)
    for name in ("policy_digest", "scores", "online_curve", "gate", "config_digest", "dataset"):
        assert found[name] == expected[name], name
    assert list(found["stages"]) == list(expected["stages"])
    folder = tmp_path / "several" / "latest"
    assert {"summary.json", "report.html", "config.yaml"} <= {path.name for path in folder.iterdir()}

    for command in (inline, several):
        code, out, _ = call(capsys, *command, "--finetune", "never", "--json")
        assert code == 0
        offline = json.loads(out)
        assert "finetune-online" not in offline["stages"]
        assert set(offline["scores"]) == {"behavior", "start", "offline"}
        reused = [facts["reused"] for name, facts in offline["stages"].items() if name != "report"]
        assert reused == [True] * 5


@pytest.mark.slow
def test_bad_data_ends_the_run_with_the_line_of_the_stage(
    capsys: pytest.CaptureFixture[str], dataset: str, tmp_path: Path
) -> None:
    """The data is there, so that only the stage itself finds out."""
    broken = saved(tmp_path, **edited("rewards", 7, float("nan")))
    arguments = through_the_pipeline(run_arguments(broken, tmp_path / "runs"))
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: prepare-dataset: ")
    assert "rewards" in errors[0]


class OneBrokenDisk(ProcessLauncher):
    """Injects a fault: critics of one dataset and seed are fitted where the cache cannot be written."""

    def __init__(self, dataset: str, seed: int, place: Path) -> None:
        self.broken, self.place, self.count = (dataset, seed), place, 0

    def command(self, image: str, command: Sequence[str], environment: Mapping[str, str]) -> Launch:
        if "fit_critics" in command:
            told = json.loads(command[command.index("--executor_input") + 1])
            config = json.loads(told["inputs"]["parameterValues"]["run"])["config"]
            if (config["dataset"], config["seed"]) == self.broken:
                self.count += 1
                environment = {**environment, CACHE_VARIABLE: str(self.place)}
        return super().command(image, command, environment)


@pytest.mark.slow
def test_a_sweep_of_two_datasets_and_two_seeds_names_the_one_member_that_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dataset: str, tmp_path: Path
) -> None:
    other = saved_recording(tmp_path / "other", steps=500)
    no_folder = tmp_path / "no-folder"
    no_folder.touch()
    fault = OneBrokenDisk(other, 2, no_folder)
    monkeypatch.setattr(local_sweep, "make_launcher", lambda *_: fault)
    sets = set_arguments()
    place = sets.index("seed=1")  # each member has its own
    del sets[place - 1 : place + 1]
    code, out, err = call(
        capsys,
        *("sweep", "--dataset", dataset, "--dataset", other, "--seeds", "1-2", "--finetune", "never"),
        *("--output", str(tmp_path / "runs"), "--name", "both", *sets),
    )
    assert code == 0, err
    assert fault.count == 1
    text = Path(out.strip()).read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    counts = {row[0]: (row[2], row[6]) for row in rows if len(row) == 7}
    assert counts[dataset] == ("2", "0")
    assert counts[other] == ("1", "1")
    members = {(row[0], row[2]): row[3:] for row in rows if len(row) == 6 and row[2] in ("1", "2")}
    assert len(members) == 4
    failed = members.pop((other, "2"))
    assert failed[0].startswith("failed: fit-critics: ")
    assert str(no_folder) in failed[0]
    for behavior, offline, _ in members.values():
        assert re.fullmatch(r"[\d.]+ ± [\d.]+", behavior)
        assert re.fullmatch(r"[\d.]+ ± [\d.]+", offline)
    assert "Of 3 runs, by last return over the clones' return: " in text
    assert (tmp_path / "runs" / "both" / "leaderboard.html").exists()


KFP_LOCAL = """
import sys
from kfp import components, local
sys.executable = sys.argv[4]  # of tasks: forks, too, as nine times PyTorch would take half a minute
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
pipeline = components.load_component_from_file(sys.argv[2])
import json
pipeline(**json.loads(sys.argv[3]))
"""


@pytest.mark.slow
def test_kfp_itself_runs_the_yaml(dataset: str, tmp_path: Path) -> None:
    """KFP's own local runner, from the compiled file alone: the report is there at the end."""
    config = load_config(
        "quick", overrides=[f"{k}={json.dumps(v)}" for k, v in SETTINGS.items()], dataset=dataset
    )
    arguments = {
        "dataset": dataset,
        "artifact_root": str(tmp_path / "root"),
        "seed": config.seed,
        "overrides": overrides(config, "quick"),
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-c", KFP_LOCAL, str(tmp_path / "kfp"), str(compiled("unio4"))]
    found = subprocess.run(
        [*command, json.dumps(arguments), str(programs() / "python3")],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    pages = list((tmp_path / "kfp").rglob("page"))
    assert len(pages) == 1
    assert "<html" in pages[0].read_text()[:300].lower()


def test_overrides_are_what_differs_from_the_preset() -> None:
    config = load_config(
        "quick", overrides=["improve.steps=77", "behavior.hidden=[8, 8]"], dataset="minari:x/y-v0"
    )
    assert overrides(config, "quick") == ["behavior.hidden=[8, 8]", "improve.steps=77"]
    assert load_config("quick", overrides=overrides(config, "quick"), dataset="minari:x/y-v0") == config


def test_seeds() -> None:
    assert parse_seeds("0-2, 7") == [0, 1, 2, 7]
    with pytest.raises(InputError, match="such as 0-4"):
        parse_seeds("4-2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "--dataset", "minari:x/y-v0", "--runner", "cloud"],
            "--runner cloud: expected one of process",
        ),
        (["sweep", "--dataset", "minari:x/y-v0", "--runner", "kfp"], "expected s3://bucket/prefix"),
        (
            ["submit", "--dataset", "minari:x/y-v0", "--artifact-root", "s3://b/p"],
            "no --endpoint; expected the URL",
        ),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert words in err
