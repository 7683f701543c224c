"""Processes that do not outlive the one that started them, however that one ends."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# Its standard input is a pipe of ours, and its end is ours: then the whole group goes, grandchildren too.
# (Linux's parent-death signal reaches children alone, and KFP's command is a shell around the task.)
GUARD = """exec 3<&0 </dev/null
(trap '' TERM INT; read -r _ <&3; eval "$0"; kill -KILL 0) >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"""


def start_guarded(command: Sequence[str], *, farewell: str = ":", **options: Any) -> subprocess.Popen[bytes]:
    """Start a command in a group of its own.

    ``farewell`` is a line for the shell, which is run, too, where we die before the command has ended.
    """
    guarded = ["sh", "-c", GUARD, farewell, *command]
    return subprocess.Popen(guarded, stdin=subprocess.PIPE, process_group=0, **options)


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """A signal for all that belongs to a process that was started here."""
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, number)


def wait_for(process: subprocess.Popen[bytes], seconds: float | None = None) -> int:
    """The exit code; what is left of the group then, goes."""
    code = process.wait(seconds)
    signal_group(process, signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.close()
    return code
