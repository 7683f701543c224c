"""How one task becomes a process: directly on this machine, or in a container of its image."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from unio4_lib.artifacts.folder_store import STAGING
from unio4_lib.artifacts.ref import ARTIFACTS
from unio4_lib.errors import InputError
from unio4_lib.runs import forks
from unio4_lib.runs.processes import signal_group, start_guarded, wait_for
from unio4_lib.stages.context import TRACKING, WORK
from unio4_lib.stages.fingerprint import CHECKPOINTS, FINGERPRINTS

POLL_SECONDS = 0.05
GRACE_SECONDS = 30.0  # for a last checkpoint, as on a cluster
IMAGE_USER = 65532
LIGHT_IMAGE = "/prepare-dataset:"
# Folders in an artifact root or a cache; what else lies there is not ours to give away.
MADE_BY_STAGES = (STAGING, ARTIFACTS, FINGERPRINTS, CHECKPOINTS, WORK, TRACKING)
HANDED_ON = ("AWS_", "MLFLOW_", "MINARI_", "OMP_", "MKL_", "UNIO4_")  # variables that containers see

# Runs inside a container: all processes of KFP's executor get the signal, and nothing else does.
ASK_TASK_TO_END = """
import os, pathlib
for place in pathlib.Path("/proc").glob("[0-9]*"):
    words = (place / "cmdline").read_bytes().split(bytes(1))
    if b"kfp.dsl.executor_main" in words:
        os.kill(int(place.name), 15)
"""

Say = Callable[[str], None]


class Launcher(Protocol):
    """Makes the command that runs a task, and ends it."""

    def command(self, image: str, command: Sequence[str], environment: Mapping[str, str]) -> "Launch": ...

    def make_folder(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Launch:
    """A command line with its surroundings; ``end`` asks a container to end, which its client cannot."""

    command: list[str]
    environment: dict[str, str]
    name: str | None = None


@dataclass(frozen=True)
class ProcessLauncher:
    """Tasks as processes of this Python."""

    def check(self) -> None:
        """KFP's executor, which begins every task, is here."""
        if find_spec("kfp") is None:
            raise InputError(
                "stages as processes need the KFP SDK; pip install 'unio4[kfp]', or --runner inline"
            )

    def command(self, image: str, command: Sequence[str], environment: Mapping[str, str]) -> Launch:
        """The command as it is: ``python3`` is the Python that runs this, or a fork of one that is ready.

        What runs in the light image needs little: for that alone nothing is made ready.
        """
        places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        if LIGHT_IMAGE not in image or forks.started():
            places.insert(0, str(forks.programs()))
        return Launch(list(command), {**os.environ, "PATH": os.pathsep.join(places), **environment})

    def make_folder(self, folder: Path) -> None:
        """A folder that tasks write to."""
        folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class ContainerLauncher:
    """Tasks as containers: an ordinary user, a read-only root file system, folders of the run mounted."""

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    program: str = "docker"

    def check(self) -> None:
        """There is a daemon to talk to."""
        if shutil.which(self.program) is None:
            raise InputError(f"no {self.program} on this machine; expected Docker, or --runner process")
        found = subprocess.run([self.program, "version"], capture_output=True, text=True, check=False)
        if found.returncode:
            line = (found.stderr.strip().splitlines() or ["no answer"])[-1]
            raise InputError(f"{self.program} does not work here ({line}); expected a running daemon")

    def command(self, image: str, command: Sequence[str], environment: Mapping[str, str]) -> Launch:
        """``docker run`` with nothing but what a task needs."""
        name = f"unio4-{uuid.uuid4().hex[:12]}"
        line = [self.program, "run", "--rm", "--init", "--name", name, "--read-only", "--tmpfs", "/tmp:exec"]
        line += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", _user()]
        # Endpoints on this machine are reached as from any of its processes.
        line += ["--network", "host", "--ipc", "private", "--shm-size", "1g"]
        if any(folder.is_relative_to("/root") for folder in (*self.writable, *self.readable)):
            # Only root may enter it in the image, and the mode given here would not change that.
            line += ["--tmpfs", "/root:uid={},gid={}".format(*_user().split(":"))]
        for folder in self.writable:
            line += ["--volume", f"{folder}:{folder}"]
        for folder in self.readable:
            line += ["--volume", f"{folder}:{folder}:ro"]
        handed_on = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
        variables = {**handed_on, **environment}
        for variable in variables:  # by name: values may be secrets, and a command line is seen by all
            line += ["--env", variable]
        return Launch([*line, image, *command], {**os.environ, **variables}, name)

    def make_folder(self, folder: Path) -> None:
        """A folder that tasks write to: root gives it to the user of the containers.

        With it goes what stages have left in it that ran as processes of root.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            left = (path for name in MADE_BY_STAGES for path in (folder / name, *(folder / name).rglob("*")))
            for path in (folder, *left):
                with suppress(FileNotFoundError):
                    os.chown(path, IMAGE_USER, IMAGE_USER, follow_symlinks=False)


def _user() -> str:
    """Whoever starts the run; for root the user of the images, who then is given the folders."""
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{IMAGE_USER}:{IMAGE_USER}"


def follow(launch: Launch, log: Path, say: Say, stopped: Callable[[], bool]) -> int:
    """Run to the end; what it reports goes to ``say``, all it says to ``log``. Returns the exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # KFP's command leaves the code of its component in a temporary folder: here it goes with the task.
    with log.open("ab") as file, TemporaryDirectory(dir=log.parent, prefix="tmp-") as scratch:
        # A group of its own: an interrupt at the terminal is ours to pass on, as a request to end.
        process = start_guarded(
            launch.command,
            farewell=_farewell(launch, scratch),
            env=launch.environment | ({"TMPDIR": scratch} if launch.name is None else {}),
            stdout=file,
            stderr=subprocess.PIPE,
        )

        def listen() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                file.write(line)
                file.flush()
                say(line.decode(errors="replace").rstrip())

        listener = threading.Thread(target=listen)
        listener.start()
        asked_at: float | None = None
        # Not the shell's end but the task's: it has our pipe until it has saved what it has.
        while listener.is_alive():
            now = time.monotonic()
            if asked_at is None and stopped():
                asked_at = now
                _ask_to_end(process, launch)
            elif asked_at is not None and now - asked_at > GRACE_SECONDS:
                _kill(process, launch)
            listener.join(POLL_SECONDS)
        return wait_for(process)


def _farewell(launch: Launch, scratch: str) -> str:
    """What the shell does where we are killed, and nothing of ours runs at the end."""
    remove = shlex.join(["rm", "-rf", scratch])
    if launch.name is None:
        return remove
    return f"{shlex.join([launch.command[0], 'kill', launch.name])}; {remove}"


def _ask_to_end(process: subprocess.Popen[bytes], launch: Launch) -> None:
    """SIGTERM for the task; KFP's command is a shell around it, which would not hand it on."""
    if launch.name is None:
        signal_group(process, signal.SIGTERM)
    else:
        ask = [launch.command[0], "exec", launch.name, "python3", "-c", ASK_TASK_TO_END]
        subprocess.run(ask, capture_output=True, check=False)


def _kill(process: subprocess.Popen[bytes], launch: Launch) -> None:
    if launch.name is not None:
        subprocess.run([launch.command[0], "kill", launch.name], capture_output=True, check=False)
    signal_group(process, signal.SIGKILL)
