"""The process that sends: it must not take the processor from the training, and runs in small images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from survivors import until

from unio4_lib.tracking import sender, tracker
from unio4_lib.tracking.tracker import NICENESS, SpoolTracker, make_tracker, step_back


def test_the_sender_takes_only_what_nobody_wants(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with make_tracker(uri, experiment="e", run_name="n", run_key="k", spool=tmp_path / "spool") as tracking:
        assert isinstance(tracking, SpoolTracker)
        assert tracking._sender is not None
        pid = tracking._sender.pid
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        # Linux shares time out between sessions first: in one of its own it would have as much as we.
        assert os.getsid(pid) == os.getsid(0)
        assert os.getpgid(pid) == pid  # and Ctrl-C does not reach it


def test_what_a_sender_was_at_when_it_was_killed_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow writes a model to a temporary folder first."""
    for name in ("PATIENCE_SECONDS", "LAST_WORD_SECONDS"):
        monkeypatch.setattr(tracker, name, 0.0)
    folder = tmp_path / "spool"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with make_tracker(uri, experiment="e", run_name="n", run_key="k", spool=folder) as tracking:
        assert isinstance(tracking, SpoolTracker) and tracking._sender is not None
        place = folder / "scratch"
        known = Path(f"/proc/{tracking._sender.pid}/environ")
        until(lambda: f"TMPDIR={place}" in known.read_text().split("\0"), 60)  # it has hardly begun
        (place / "model").mkdir()
    assert not place.exists()
    (place / "model").mkdir(parents=True)  # by one that was killed with its run
    monkeypatch.setattr(sender.Sending, "attempt", lambda _: True)
    sender.deliver_spool(folder)
    assert not place.exists()


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
