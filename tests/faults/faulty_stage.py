"""A stage in a process of its own, as the command line runs it, on a disk that may be full or read-only."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from stage_process import PRELOADED

from unio4_lib.artifacts.ref import ArtifactRef

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # of unshare(2)
READ_ONLY, REMOUNT, BIND, ALL_BELOW, PRIVATE = 1, 32, 4096, 16384, 1 << 18  # of mount(2)


def command(
    stage: str, settings: Path, root: Path, inputs: Mapping[str, ArtifactRef], place: Path
) -> list[str]:
    """Arguments of ``unio4 stage``; references, cache and result lie in ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    words = ["stage", stage, "--config", str(settings), "--artifact-root", str(root), "--tracking", "none"]
    words += ["--cache", str(place / "cache"), "--output", str(place / "ref.json"), "--quiet"]
    for kind, ref in inputs.items():
        ref.save(place / f"{kind}.json")
        words += ["--input", f"{kind}={place / kind}.json"]
    return words


@dataclass
class Running:
    """A stage at work, and the pipe that it speaks into: files may be what it cannot write."""

    process: BaseProcess
    ear: int

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, or None if it still runs."""
        self.process.join(seconds)
        return self.process.exitcode

    def signal(self, number: int, *, group: bool = False) -> None:
        if self.process.exitcode is None and self.process.pid is not None:
            try:
                (os.killpg if group else os.kill)(self.process.pid, number)
            except ProcessLookupError:  # not yet a group of its own, or gone in this moment
                self.process.kill()

    def said(self) -> str:
        """All that it said, once it has ended."""
        heard = b""
        with suppress(BlockingIOError):
            while part := os.read(self.ear, 1 << 16):
                heard += part
        os.close(self.ear)
        return heard.decode()


def start(
    words: Sequence[str],
    place: Path,
    *,
    largest_file: int | None = None,
    read_only: Path | None = None,
    small_disk: tuple[Path, int] | None = None,
) -> Running:
    """The stage, forked from a process that has imported everything."""
    (place / "said").unlink(missing_ok=True)
    os.mkfifo(place / "said")
    ear = os.open(place / "said", os.O_RDWR | os.O_NONBLOCK)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    told = (list(words), place, largest_file, read_only, small_disk)
    process = context.Process(target=_run, args=told, daemon=True)
    process.start()
    return Running(process, ear)


def _run(
    words: list[str],
    place: Path,
    largest_file: int | None,
    read_only: Path | None,
    small_disk: tuple[Path, int] | None,
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said = os.open(place / "said", os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if read_only is not None or small_disk is not None:
        own_mounts()
    if read_only is not None:
        _mount(str(read_only), str(read_only), None, BIND, None)
        _mount(None, str(read_only), None, BIND | REMOUNT | READ_ONLY, None)
    if small_disk is not None:
        small_disk[0].mkdir(parents=True, exist_ok=True)
        _mount("none", str(small_disk[0]), "tmpfs", 0, f"size={small_disk[1]}")
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    from unio4_lib.cli.commands import main

    main(words)


def own_mounts() -> None:
    """What is mounted from now on only this process sees; it need not be root for that."""
    library = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if library.unshare(NEW_MOUNTS | NEW_USERS) != 0:
        raise PermissionError(ctypes.get_errno(), "no mounts of one's own here")
    with suppress(OSError):  # older systems have no such file
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(None, "/", None, ALL_BELOW | PRIVATE, None)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    if library.mount(*words, ctypes.c_ulong(flags), options and options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"{target} cannot be mounted")


def mounts_allowed() -> bool:
    """Whether a process may have mounts of its own here."""
    process = multiprocessing.get_context("forkserver").Process(target=own_mounts, daemon=True)
    process.start()
    process.join()
    return process.exitcode == 0
