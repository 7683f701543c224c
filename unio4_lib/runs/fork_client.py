"""Stands for ``python3`` before a task: has KFP's executor forked, and is the real Python for anything else.

It is started as a file, by a Python that imports nothing by itself: every task waits for it.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

EXECUTOR = "kfp.dsl.executor_main"
SOCKET = "socket"


def main(folder: str, python: str, arguments: list[str]) -> int:
    """End as the real Python ends, or by the fork's signal; its exit code otherwise."""
    connection = _connected(folder) if arguments[:2] == ["-m", EXECUTOR] else None
    if connection is None:
        os.execv(python, [python, *arguments])  # by its path: else it would look for its packages elsewhere
    told = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "group": os.getpgid(0),
    }
    socket.send_fds(connection, [b"."], [0, 1, 2])
    connection.sendall(json.dumps(told).encode())
    connection.shutdown(socket.SHUT_WR)
    answer = connection.recv(16)
    code = int(answer) if answer else -signal.SIGKILL  # with no answer, the server was killed
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _connected(folder: str) -> "socket.socket | None":
    """A connection to the server, if it lives."""
    connection, home = socket.socket(socket.AF_UNIX), Path.cwd()
    try:
        os.chdir(folder)
        connection.connect(SOCKET)
    except OSError:
        return None
    finally:
        os.chdir(home)
    return connection


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
