"""Ends what a test suite has started once the suite is gone, whatever way it went.

No fixture outlives SIGKILL: this is a process beside the suite. It knows the suite's processes by a variable
that they inherit, servers in sessions of their own included.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

MARK = "UNIO4_TESTS"
PAUSE_SECONDS = 0.3
ENDING_SECONDS = 10.0  # for those that start further ones while they are ended


def watch_this_suite() -> None:
    """Once: workers of a suite, and suites that a test starts, have its mark already."""
    if MARK in os.environ:
        return
    os.environ[MARK] = uuid4().hex
    command = [sys.executable, "-S", __file__, str(os.getpid()), os.environ[MARK]]
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    nothing = subprocess.DEVNULL  # whoever reads what the suite says does not wait for this process
    subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, env=unmarked, start_new_session=True
    )


def marked(mark: str) -> list[int]:
    """Living processes that have the mark in their surroundings."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended, or is not ours
            if wanted in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
    return found


def main(suite: int, mark: str) -> None:
    while os.getppid() == suite:
        time.sleep(PAUSE_SECONDS)
    deadline = time.monotonic() + ENDING_SECONDS
    while (left := marked(mark)) and time.monotonic() < deadline:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
