"""A process that is asked to end saves what it has, says 75, and is taken up elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from survivors import until
from tiny_runs import run_arguments, saved_recording
from whole_runs import STAGES, TRAINING, AskedToEnd, all_artifacts, find_stage, inputs_of, tiny_config

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.errors import Preempted
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.runner import StageOutcome, run_stage

ENDLESS = 300_000  # steps: minutes at this size
PROMPT_SECONDS = 60.0  # on a busy machine; those steps would take minutes there, too
LONGEST_SECONDS = 600.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> UniO4Config:
    return tiny_config(saved_recording(tmp_path_factory.mktemp("recorded")))


@pytest.fixture(scope="module")
def whole(config: UniO4Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ArtifactRef]:
    return all_artifacts(config, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", [stage.name for stage in STAGES])
def test_a_stage_goes_on_with_the_same_bits(
    name: str, config: UniO4Config, whole: dict[str, ArtifactRef], tmp_path: Path
) -> None:
    stage = find_stage(name)
    inputs = inputs_of(stage.inputs, whole)
    for attempt in range(3):  # asked to end three times, each time on another machine
        context = StageContext(
            tmp_path / "root", cache=tmp_path / f"disk-{attempt}", preemption=AskedToEnd(2)
        )
        if name == "prepare-dataset":  # of rows that are there: nothing in it takes long
            break
        with context, pytest.raises(Preempted):
            run_stage(find_stage(name), config, inputs, context)
    outcome = _finish(name, config, inputs, tmp_path)
    assert outcome.ref.digest == whole[stage.kind].digest
    assert outcome.resumed == (name in TRAINING)
    assert not outcome.reused
    left = [path for path in (tmp_path / "root" / "checkpoints").rglob("*") if path.is_file()]
    assert left == []  # their duty is done
    assert _finish(name, config, inputs, tmp_path).reused


def _finish(name: str, config: UniO4Config, inputs: dict[str, ArtifactRef], tmp_path: Path) -> StageOutcome:
    with StageContext(tmp_path / "root", cache=tmp_path / "last") as context:
        return run_stage(find_stage(name), config, inputs, context)


def test_sigterm_ends_a_run_with_75_and_both_branches_have_saved(tmp_path: Path) -> None:
    dataset = saved_recording(tmp_path / "recorded")
    endless = {
        f"{name}__{key}": ENDLESS for name in ("behavior", "dynamics") for key in ("steps", "patience")
    }
    command = [
        sys.executable,
        "-m",
        "unio4_lib.cli",
        *run_arguments(dataset, tmp_path / "runs", **endless),
    ]
    cache, own = tmp_path / "cache", {**os.environ, "UNIO4_CACHE": str(tmp_path / "cache")}

    def both_at_work() -> bool:
        finished = {path.name for path in (tmp_path / "runs/artifacts/fingerprints").glob("*")}
        begun = {path.parent.name for path in cache.glob("work/*/artifact-*")}
        return len(finished) == 2 and len(begun - finished) == 2

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("dataset: ") for line in process.stderr)
        until(both_at_work, LONGEST_SECONDS)
        process.terminate()
        try:
            out, err = process.communicate(timeout=PROMPT_SECONDS)
        finally:
            process.kill()
    assert (process.returncode, out) == (75, "")
    assert err.splitlines()[-1].startswith("error: asked to end")
    saved = list((tmp_path / "runs" / "artifacts" / "checkpoints").glob("*/state-*.ckpt"))
    assert len({path.parent for path in saved}) == 2
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/failed.txt"))
    assert (
        folder / "failed.txt"
    ).read_text() == "interrupted\nfinished stages: prepare-dataset, fit-critics\n"
    assert not (tmp_path / "runs" / "latest").exists()
