"""The process that sends: it must not take the processor from the training, and runs in small images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unio4_lib.tracking.tracker import NICENESS, SpoolTracker, make_tracker, step_back


def test_the_sender_takes_only_what_nobody_wants(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with make_tracker(uri, experiment="e", run_name="n", run_key="k", spool=tmp_path / "spool") as tracker:
        assert isinstance(tracker, SpoolTracker)
        assert tracker._sender is not None
        sender = tracker._sender.pid
        assert os.sched_getscheduler(sender) == os.SCHED_IDLE
        # Linux shares time out between sessions first: in one of its own it would have as much as we.
        assert os.getsid(sender) == os.getsid(0)
        assert os.getpgid(sender) == sender  # and Ctrl-C does not reach it


def test_the_sender_is_as_nice_as_can_be_where_there_is_no_idle_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "SCHED_IDLE")
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        step_back(sleeper.pid)
        assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == NICENESS
    finally:
        sleeper.kill()
        sleeper.wait()


def test_sending_to_a_server_needs_no_databases() -> None:
    """Images of stages have mlflow-skinny, which comes without SQLAlchemy."""
    code = "import sys; sys.modules['sqlalchemy'] = None; import unio4_lib.tracking.delivery"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
