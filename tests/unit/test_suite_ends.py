"""The suite itself leaves no process behind, whatever ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from end_with_suite import MARK, marked
from survivors import until

# A server with a session of its own and a child that ignores what is polite, as servers of tests have them.
SUITE = """
import os, subprocess, time
from pathlib import Path

def test_something():
    child = "trap '' TERM INT HUP; sleep 300 & wait"
    server = subprocess.Popen(["sh", "-c", child], start_new_session=True)
    Path({told!r}).write_text(os.environ[{mark!r}])
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_suite_started_ends_with_it(
    number: signal.Signals, workers: int, repository: Path, tmp_path: Path
) -> None:
    told = tmp_path / "mark.txt"
    (tmp_path / "test_it.py").write_text(SUITE.format(told=str(told), mark=MARK))
    command = [sys.executable, "-m", "pytest", "-c", str(repository / "pyproject.toml"), "-p", "conftest"]
    command += ["-n", str(workers), str(tmp_path / "test_it.py")]
    outside = {name: value for name, value in os.environ.items() if name != MARK}
    suite = subprocess.Popen(command, env=outside | {"PYTHONPATH": os.pathsep.join(sys.path)})
    # The suite's own process set the mark, so that it is not among its surroundings; its workers have it.
    until(lambda: told.exists() and len(marked(told.read_text())) == workers + 2, seconds=60)
    mark = told.read_text()
    suite.send_signal(number)
    suite.wait()
    until(lambda: not marked(mark), seconds=5)
