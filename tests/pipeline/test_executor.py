"""The local executor does with a compiled pipeline what a cluster does, side by side where it can."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import small_pipelines
from kfp.dsl.base_component import BaseComponent
from survivors import left_behind, until

from unio4_lib.errors import InputError
from unio4_lib.runs import fork_client
from unio4_lib.runs.executor import LocalPipeline, TaskReport
from unio4_lib.runs.launch import ProcessLauncher
from unio4_lib.runs.spec import PipelineSpec, holds


class Ran:
    def __init__(self, tmp_path: Path, pipeline: BaseComponent, **arguments: Any) -> None:
        self.notes, self.lines = tmp_path / "notes", []
        self.notes.mkdir()
        spec = PipelineSpec.load(small_pipelines.compiled_to(pipeline, tmp_path))
        self.pipeline = LocalPipeline(
            spec, ProcessLauncher(), tmp_path / "work", environment={}, say=self.lines.append
        )
        self.well = self.pipeline.run({"folder": str(self.notes), **arguments})

    def names(self) -> set[str]:
        return {path.name for path in self.notes.iterdir()}

    def report(self, name: str) -> TaskReport:
        return next(report for report in self.pipeline.reports if report.path.endswith(name))

    def times(self, name: str) -> tuple[float, float]:
        began, ended, _ = (self.notes / name).read_text().split()
        return float(began), float(ended)


def test_independent_tasks_overlap_and_dependent_ones_wait(tmp_path: Path) -> None:
    ran = Ran(tmp_path, small_pipelines.side_by_side)
    left, right, after = (ran.times(name) for name in ("left", "right", "after"))
    assert ran.well
    assert max(left[0], right[0]) < min(left[1], right[1])
    assert after[0] >= max(left[1], right[1])


@pytest.mark.parametrize(
    ("codes", "well", "attempts"),
    [
        ([75, 0], True, 2),
        (["kill", 0], True, 2),
        ([1, 0], False, 1),  # failed for good
        ([2, 0], False, 1),  # bad input stays bad
        ([75, 75, 75, 0], False, 3),
    ],
)
def test_only_what_another_attempt_can_mend_is_tried_again(
    tmp_path: Path, codes: list[Any], well: bool, attempts: int
) -> None:
    ran = Ran(tmp_path, small_pipelines.retried, codes=codes)
    assert (ran.well, ran.report("end-with").attempts) == (well, attempts)
    assert ("second" in ran.names()) == well


def test_a_failure_stops_what_runs_beside_it_and_the_exit_task_knows(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = Ran(tmp_path, small_pipelines.closed, codes=[2])
    assert time.monotonic() - began < small_pipelines.SLOW_SECONDS
    assert not ran.well
    assert ran.names() == {"first-0", "status"}
    assert (ran.notes / "status").read_text() == "FAILED"
    assert ran.report("end-with").error == "first ends with 2"
    assert ran.report("note").state == "stopped"


def test_the_exit_task_knows_of_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    ran = Ran(tmp_path, small_pipelines.retried, codes=[0])
    assert ran.well
    assert list(ran.notes.parent.rglob("ephemeral_component.py")) == []
    assert list(temporary.iterdir()) == []
    assert ran.lines == []  # an error line would be repeated, others would be here


@pytest.mark.parametrize(("other", "expected"), [("yes", "yes"), ("maybe", "no")])
def test_conditions(tmp_path: Path, other: str, expected: str) -> None:
    ran = Ran(tmp_path, small_pipelines.branching, codes=[0], other=other)
    assert ran.well
    assert ran.names() == {"first-0", expected}


def test_a_failed_member_leaves_the_others_alone(tmp_path: Path) -> None:
    members = [
        {"first": f"m{index}", "last": f"last{index}", "codes": [code], "number": index}
        for index, code in enumerate([0, 1, 0])
    ]
    ran = Ran(tmp_path, small_pipelines.loop, members=members)
    assert not ran.well
    assert ran.names() == {"m0-0", "m1-0", "m2-0", "last0", "last2", "board"}
    assert (ran.notes / "last2").read_text().split()[2] == "2"  # a whole number, as it was given


def test_a_request_to_end_reaches_the_tasks(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    spec = PipelineSpec.load(small_pipelines.compiled_to(small_pipelines.closed, tmp_path))
    pipeline = LocalPipeline(
        spec,
        ProcessLauncher(),
        tmp_path / "work",
        environment={},
        say=print,
        ended=(notes / "first-0").exists,
    )
    assert not pipeline.run({"folder": str(notes), "codes": [0]})
    assert (notes / "status").read_text() in ("CANCELLED", "FAILED")
    assert not (notes / "slow").exists()


def test_tasks_are_forks_of_one_process_with_surroundings_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch is there, though they never asked for it; what one does to its environment is its own."""
    monkeypatch.setenv("SEEN", "given")
    ran = Ran(tmp_path, small_pipelines.looking)
    assert ran.well
    found = [json.loads(path.read_text()) for path in ran.notes.iterdir()]
    assert len({task["pid"] for task in found}) == 2
    assert [(task["torch"], task["seen"]) for task in found] == [(True, "given")] * 2


def test_where_nothing_forks_a_task_is_a_process_as_any_other(tmp_path: Path) -> None:
    client = [sys.executable, "-I", "-S", fork_client.__file__, str(tmp_path), sys.executable]
    asked = subprocess.run(
        [*client, "-m", fork_client.EXECUTOR, "--help"], capture_output=True, text=True, check=True
    )
    assert "--function_to_execute" in asked.stdout


FOLLOWING = """
import sys
from pathlib import Path
from unio4_lib.runs.launch import ProcessLauncher, follow
task = ["sh", "-c", "touch $TMPDIR/code.py; python3 -c 'import time; time.sleep(600)' {marker}; true"]
follow(ProcessLauncher().command("x/prepare-dataset:1", task, {{}}), Path("{marker}"), print, lambda: False)
"""


def test_a_task_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    """KFP's command is a shell around the task: a signal for children alone would miss it."""
    marker = tmp_path / "log.txt"
    with subprocess.Popen([sys.executable, "-c", FOLLOWING.format(marker=marker)]) as process:
        begun = lambda: any(line.startswith("python3 -c import") for line in left_behind(str(marker)))  # noqa: E731
        until(begun)
        assert len(list(tmp_path.glob("tmp-*/code.py"))) == 1
        process.kill()
    until(lambda: left_behind(str(marker)) == [])
    until(lambda: [path.name for path in tmp_path.iterdir()] == ["log.txt"])


SERVING = """
import os, signal
from unio4_lib.runs import forks
assert (forks.programs() / "socket").exists()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_forks_tasks_leaves_nothing_behind_where_a_run_is_killed(tmp_path: Path) -> None:
    """Its folder has a name that a shell would take for two, and beside it is one with half that name."""
    kept, temporary = tmp_path / "half", tmp_path / "half a name"
    kept.mkdir()
    temporary.mkdir()
    killed = subprocess.run([sys.executable, "-c", SERVING], env={**os.environ, "TMPDIR": str(temporary)})
    assert killed.returncode == -signal.SIGKILL
    until(lambda: list(temporary.iterdir()) == [])
    until(lambda: left_behind(str(temporary)) == [])
    assert kept.exists()


def test_wrong_arguments_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no parameter colour; expected codes, folder"):
        Ran(tmp_path, small_pipelines.retried, colour=1)


def test_a_condition_that_is_not_understood_is_not_guessed() -> None:
    with pytest.raises(InputError, match="does not know the condition"):
        holds("inputs.parameter_values['a'] > 3", {"a": 4})
