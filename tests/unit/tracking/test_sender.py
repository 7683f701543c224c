"""The process that sends: it must not take the processor from the training, and runs in small images."""

import subprocess
import sys
from pathlib import Path

import pytest

from unio4_lib.tracking.sender import AUTOGROUP

STEP_BACK = """
import os
from unio4_lib.tracking.sender import AUTOGROUP, step_back
step_back()
print(os.nice(0), AUTOGROUP.read_text() if AUTOGROUP.exists() else "")
"""


def test_the_sender_steps_back_in_its_session_and_among_sessions() -> None:
    command = [sys.executable, "-c", STEP_BACK]
    said = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout
    assert said.startswith("19 ")
    if not AUTOGROUP.exists() or Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() != "1":
        pytest.skip("this kernel does not share processor time between sessions")
    assert said.strip().endswith("nice 19")


def test_sending_to_a_server_needs_no_databases() -> None:
    """Images of stages have mlflow-skinny, which comes without SQLAlchemy."""
    code = "import sys; sys.modules['sqlalchemy'] = None; import unio4_lib.tracking.delivery"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
