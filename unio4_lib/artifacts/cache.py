"""A local cache by digest: the same bytes are fetched once on a machine, by whatever process."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from unio4_lib.artifacts.integrity import check_folder, partial_folder, read_manifest
from unio4_lib.errors import InputError

LIMIT_BYTES = 20 * 1000**3
LOCK_SUFFIX = ".lock"


class Cache:
    """Artifact folders below ``root``; the least recently used go when they exceed ``limit_bytes``.

    Each artifact has a lock file. It is held shared while a folder is in use, and alone while a folder is
    filled or removed, so two processes neither fetch twice nor pull a folder from under each other.
    """

    def __init__(self, root: str | os.PathLike[str], limit_bytes: int = LIMIT_BYTES) -> None:
        self.root, self.limit_bytes = Path(root).absolute(), limit_bytes

    @contextmanager
    def hold(self, digest: str, fill: Callable[[Path], object]) -> Iterator[Path]:
        """The verified folder of an artifact; ``fill`` fetches it if it is not here or is damaged."""
        folder = self.root / digest
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = self._lock_path(digest).open("ab")
        except OSError as error:
            raise InputError(
                f"{self.root}: the cache cannot be written ({error.strerror}); choose another one "
                "(--cache or UNIO4_CACHE)"
            ) from error
        with lock:
            self._fill_and_share(lock, folder, fill)
            os.utime(self._lock_path(digest))  # when it was last used
            self._evict()
            yield folder

    def _fill_and_share(self, lock: IO[Any], folder: Path, fill: Callable[[Path], object]) -> None:
        filled = False
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.exists() if filled else _is_whole(folder):
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(folder):
                self._remove(folder)
                fill(folder)
            filled = True  # and verified, by whoever did it
            # From alone to shared is two steps for the system: someone may remove the folder in between.

    def _evict(self) -> None:
        used = sorted(
            (path.stat().st_mtime, path.name.removesuffix(LOCK_SUFFIX))
            for path in self.root.glob(f"*{LOCK_SUFFIX}")
        )
        sizes = {
            digest: _size(self.root / digest) + _size(partial_folder(self.root / digest))
            for _, digest in used
        }
        total = sum(sizes.values())
        for _, digest in used:
            if total <= self.limit_bytes:
                return
            with self._lock_path(digest).open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # in use
                self._remove(self.root / digest)
                self._remove(partial_folder(self.root / digest))  # of a fetch that was killed
                total -= sizes[digest]

    def _remove(self, folder: Path) -> None:
        if folder.exists():
            grave = self.root / f".removed-{uuid.uuid4().hex}"
            folder.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)

    def _lock_path(self, digest: str) -> Path:
        return self.root / f"{digest}{LOCK_SUFFIX}"


def _is_whole(folder: Path) -> bool:
    """Whether every byte is right: a disk may have changed them since they came."""
    if not folder.exists():
        return False
    try:
        check_folder(folder, read_manifest(folder, folder.name))
    except InputError:
        return False
    return True


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over what another process removes
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total
