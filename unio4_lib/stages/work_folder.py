"""The folder where a stage computes: its checkpoints, and what becomes its artifact."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LOCK_FILE = ".lock"
TRIES = 1000
KEPT = "state-*.ckpt"  # checkpoints: whoever computes the stage next begins there


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Be one of the processes at work there; the last one to leave sweeps up.

    Processes that were killed leave half-written files. A name does not tell whether its writer lives, but a
    lock does: each holds it shared, and who can have it alone is the last.
    """
    with _join(folder) as lock:
        try:
            yield
        finally:
            with suppress(OSError):  # somebody else is at work, or the folder was deleted
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_open(folder, lock):
                    _sweep(folder)


def _join(folder: Path) -> IO[Any]:
    for _ in range(TRIES):
        with suppress(FileExistsError, FileNotFoundError):  # the last one of others is removing the folder
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / LOCK_FILE).open("ab")
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_open(folder, lock):
                return lock
            lock.close()
    folder.mkdir(parents=True, exist_ok=True)  # which says what is wrong, if it is not that
    raise OSError(errno.EBUSY, "others come and go there", str(folder))


def _is_open(folder: Path, lock: IO[Any]) -> bool:
    """Whether the lock is that of the folder, and not of one that was removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK_FILE).stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.match(KEPT) and path.name != LOCK_FILE:
            path.unlink(missing_ok=True)
    if list(folder.glob(KEPT)):
        return
    (folder / LOCK_FILE).unlink()
    folder.rmdir()
