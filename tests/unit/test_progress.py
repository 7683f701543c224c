"""Progress of stages in other processes: their lines become bars on a terminal, and stay lines in a log."""

import io
import re

import pytest
from rich.console import Console

from unio4_lib.progress import INTERVAL_VARIABLE, Reporter


def lines_of_a_stage(monkeypatch: pytest.MonkeyPatch, parent: Reporter) -> list[str]:
    """What a stage in another process writes to its standard error when that parent asks it."""
    for name, value in parent.child_environment.items():
        monkeypatch.setenv(name, value)
    error = io.StringIO()
    with Reporter(Console(file=error, width=200)) as child, child.stage("fit-critics", 3000, 500) as update:
        update(1500, "value 3.2")
        update(2900, "value 3.4")
    return error.getvalue().splitlines()


def test_a_bar_follows_a_stage_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    with Reporter(Console(file=terminal, force_terminal=True, width=120)) as parent:
        lines = lines_of_a_stage(monkeypatch, parent)
        assert lines[0] == "fit-critics: 500/3,000 (begun)"
        for line in ["dataset: 600 transitions in 109 episodes", *lines]:
            parent.relay(line)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).splitlines()
    assert "dataset: 600 transitions in 109 episodes" in (line.strip() for line in shown)
    # It stopped before its last step, and is complete all the same.
    last = [line for line in shown if "fit-critics" in line][-1]
    assert re.search(r"fit-critics +━+ +2,900/2,900 +[\d,]+/s +in 00:00 +value 3.4", last)
    assert not any("begun" in line for line in shown)


def test_a_log_keeps_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    with Reporter(Console(file=log, width=200)) as parent:
        assert parent.child_environment == {}
        lines = lines_of_a_stage(monkeypatch, parent)
        for line in lines:
            parent.relay(line)
    assert lines == ["fit-critics: 2,900/3,000 (done in 0:00:00) value 3.4"]
    assert log.getvalue().splitlines() == lines


def test_a_resumed_stage_counts_only_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    clock = iter([100.0, 100.0, 102.0, 102.0, 102.0, 102.0])
    monkeypatch.setattr("unio4_lib.progress.time.monotonic", lambda: next(clock, 102.0))
    log = io.StringIO()
    with (
        Reporter(Console(file=log, width=200)) as reporter,
        reporter.stage("fit-critics", 900, 500) as update,
    ):
        update(700, "")
    assert "fit-critics: 700/900 (100/s, 0:00:02 left)" in log.getvalue()
