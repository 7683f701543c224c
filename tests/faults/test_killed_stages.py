"""Stages killed at random moments go on elsewhere: the same bits, and little done twice.

``UNIO4_KILLS=20 pytest tests/faults/test_killed_stages.py`` kills each stage twenty times;
``UNIO4_KILL_LOG=FILE`` keeps the log of the moments.
"""

import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stage_process import LONGEST_SECONDS, start, steps_of
from tiny_runs import SETTINGS, saved_recording
from whole_runs import STAGES, find_stage, inputs_of

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.unio4.settings import UniO4Config

KILLS = int(os.environ.get("UNIO4_KILLS", "1"))
INTERVAL_SECONDS = 0.1
# The store follows the disk in the background, on a machine that does other things too.
SLACK_SECONDS = 2.0
# Large enough to be killed in their middle: some checkpoints each.
LONGER = {
    "behavior.steps": 400,
    "critics.steps": 400,
    "dynamics.steps": 400,
    "improve.steps": 80,
    "finetune.env_steps": 3000,
    "finetune.evaluate_every": 1000,
    "evaluate.episodes": 20,
    "checkpoint_seconds": INTERVAL_SECONDS,
}
COLLECTED = "collect:InvertedPendulum-v5?level=expert&train_steps=6000&steps=400"
RESUMING = ("clone-behavior", "fit-critics", "fit-dynamics", "improve-policy", "finetune-online")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> UniO4Config:
    dataset = saved_recording(tmp_path_factory.mktemp("datasets"))
    return load_config(
        dataset=dataset, overrides=[f"{k}={json.dumps(v)}" for k, v in (SETTINGS | LONGER).items()]
    )


@dataclass
class Whole:
    """Every artifact of a run that nobody interrupts, and how long each stage took."""

    refs: dict[str, ArtifactRef] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def whole(config: UniO4Config, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    made, folder = Whole(), tmp_path_factory.mktemp("whole")
    for stage in STAGES:
        inputs, place = inputs_of(stage.inputs, made.refs), folder / stage.name
        made.seconds[stage.name] = _finished(stage.name, config, inputs, place, folder / "root")
        made.refs[stage.kind] = ArtifactRef.load(place / "ref.json")
    return made


@pytest.fixture(scope="module")
def moments() -> random.Random:
    return random.Random(int(os.environ.get("UNIO4_KILL_SEED", "0")))


@pytest.mark.parametrize("name", [stage.name for stage in STAGES])
def test_killed_anywhere_it_goes_on_elsewhere(
    name: str,
    config: UniO4Config,
    whole: Whole,
    moments: random.Random,
    tmp_path: Path,
) -> None:
    stage = find_stage(name)
    inputs, digest = inputs_of(stage.inputs, whole.refs), whole.refs[stage.kind].digest
    _kill_and_go_on(name, config, inputs, digest, whole.seconds[name], moments, tmp_path)


def test_collecting_goes_on_from_its_training(
    config: UniO4Config, moments: random.Random, tmp_path: Path
) -> None:
    collecting = config.model_copy(update={"dataset": COLLECTED})
    place, root = tmp_path / "whole", tmp_path / "whole-root"
    seconds = _finished("prepare-dataset", collecting, {}, place, root)
    digest = ArtifactRef.load(place / "ref.json").digest
    _kill_and_go_on("prepare-dataset", collecting, {}, digest, seconds, moments, tmp_path)


def _kill_and_go_on(
    name: str,
    config: UniO4Config,
    inputs: dict[str, ArtifactRef],
    digest: str,
    seconds: float,
    moments: random.Random,
    tmp_path: Path,
) -> None:
    kills = 0
    for number in range(4 * KILLS):
        place, root = tmp_path / f"killed-{number}", tmp_path / f"root-{number}"
        process = start(name, config, inputs, place, str(root))
        killed_after = moments.uniform(0.0, seconds)
        process.join(killed_after)
        process.kill()
        process.join()
        saved = any((root / "checkpoints").rglob("*.ckpt"))
        again = tmp_path / f"again-{number}"
        _finished(name, config, inputs, again, root)
        first, second = steps_of(place / "steps"), steps_of(again / "steps")
        entry: dict[str, Any] = {"stage": name, "killed": process.exitcode != 0}
        entry.update(_repeated(first, second, killed_after))
        _write_down(entry)
        assert ArtifactRef.load(again / "ref.json").digest == digest, entry
        assert not (saved and entry["killed"] and (again / "from-the-beginning").exists()), entry
        if name in RESUMING and entry["killed"]:
            assert entry["repeated_seconds"] < INTERVAL_SECONDS + SLACK_SECONDS, entry
        kills += entry["killed"]  # a stage may have been faster than the kill
        if kills == KILLS:
            return
    raise AssertionError(f"{name}: killed {kills} times only")


def _finished(
    name: str, config: UniO4Config, inputs: dict[str, ArtifactRef], place: Path, root: Path
) -> float:
    """Seconds of a stage that is left alone, on an empty local disk."""
    process = start(name, config, inputs, place, str(root))
    began = time.monotonic()
    process.join(LONGEST_SECONDS)
    assert process.exitcode == 0, f"{name}: {process.exitcode}"
    return time.monotonic() - began


def _repeated(
    first: list[tuple[float, int]], second: list[tuple[float, int]], killed_after: float
) -> dict[str, Any]:
    """Where both processes stood, and how long the first had worked on what the second did again."""
    ended = first[0][0] + killed_after
    again = second[1][1] if len(second) > 1 else first[-1][1] + 1  # the first step that was logged again
    kept = [first[0][0], *(moment for moment, step in first if step < again)]
    return {
        "seconds": round(killed_after, 3),
        "step_when_killed": first[-1][1],
        "first_step_again": again,
        "repeated_seconds": round(max(0.0, ended - kept[-1]), 3),
    }


def _write_down(entry: dict[str, Any]) -> None:
    place = os.environ.get("UNIO4_KILL_LOG")
    if place:
        with Path(place).open("a") as file:
            file.write(json.dumps(entry) + "\n")
