"""Tasks as forks of one process that has imported what they all need: PyTorch alone takes seconds.

KFP's command stays as it is, a shell around ``python3 -m kfp.dsl.executor_main ...``. The ``python3`` that
the shell finds is ``fork_client.py``: it hands its arguments, its surroundings and its open files to the
process here, waits for the fork, and ends as that one ended. The fork joins its group, to hear its signals.
"""

import atexit
import json
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from unio4_lib.runs import fork_client
from unio4_lib.runs.processes import start_guarded

# With them come PyTorch, the simulators, and all that stages of several methods share.
PRELOADED = (
    "kfp.dsl.executor",
    "unio4_lib.cli.component",
    "unio4_lib.methods.offpolicy",
    "unio4_lib.sim.registry",
)
BACKLOG = 64

_started: list[Path] = []  # the folder of this process's server, once there is one
_lock = threading.Lock()


def started() -> bool:
    """Whether there is a server."""
    return bool(_started)


def programs() -> Path:
    """A folder for the front of PATH whose ``python3`` forks; the server behind it is started once."""
    with _lock:
        if not _started:
            _started.append(_start())
        return _started[0]


def _start() -> Path:
    folder = Path(mkdtemp(prefix="unio4-forks-"))  # for nobody but us: who may connect may run anything
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    client = (sys.executable, "-I", "-S", fork_client.__file__, str(folder), sys.executable)
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    python.chmod(0o700)
    command = [sys.executable, "-m", __name__, str(folder)]
    alone = os.environ | {"_KFP_RUNTIME": "true"}  # as KFP's command says, too: without most of the SDK
    process = start_guarded(
        command,
        farewell=shlex.join(["rm", "-rf", str(folder)]),  # where we are killed, and nothing runs at the end
        env=alone,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()  # it listens, or it has ended: then tasks are processes as any other
    return folder


def serve(folder: Path) -> None:
    """Import, then fork for whoever asks, until the process that started this one ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        home = Path.cwd()
        os.chdir(folder)  # the path of a socket must be short
        listener.bind(fork_client.SOCKET)
        listener.listen(BACKLOG)
        os.chdir(home)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        for module in PRELOADED:
            import_module(module)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of the keepers
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _keep(connection)


def _keep(connection: socket.socket) -> None:
    """Fork the task, wait, and tell its client how it ended."""
    files = socket.recv_fds(connection, 1, 3)[1]
    with connection.makefile("rb") as stream:
        told = json.load(stream)
    # Taking an interpreter with PyTorch apart takes a second: such a process ends without that.
    task = multiprocessing.get_context("fork").Process(target=_become, args=(told, files))
    task.start()
    for file in files:  # or who reads what the task says would wait for us
        os.close(file)
    task.join()
    with suppress(BrokenPipeError):  # the client was ended with the task
        connection.sendall(f"{task.exitcode}".encode())
    os._exit(0)


def _become(told: dict[str, Any], files: list[int]) -> None:
    """Go on as the process that the client would have been."""
    os.setpgid(0, told["group"])
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    if not sys.flags.safe_path:
        sys.path[0] = told["folder"]
    sys.argv = told["arguments"][1:]
    runpy.run_module(fork_client.EXECUTOR, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
