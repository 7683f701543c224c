"""Files that appear whole or not at all, and bytes that carry their own checksum."""

import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from unio4_lib.errors import InputError

BLOCK_BYTES = 1 << 20  # what is held in memory of a file that is hashed or copied
MAGIC = b"unio4f1\n"
LENGTH_BYTES, DIGEST_BYTES = 8, 32
FRAME_BYTES = len(MAGIC) + LENGTH_BYTES + DIGEST_BYTES


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows which names the folder has."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, *parts: bytes) -> None:
    """Replace a file by these bytes: after a crash there is the old file or the new one, never a mixture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def local_path(text: str) -> Path:
    """A place as a user writes it; ~ and ~name are homes."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text}: nobody of that name has a home here; write the whole path") from error


def output_file(path: Path) -> Path:
    """Where a result goes that the user wants in a file: links are followed, and no device is replaced."""
    try:
        place = path.resolve()
        if place.is_file() or not place.exists():
            return place
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        reason = error.strerror if isinstance(error, OSError) else "links in a circle"
        raise InputError(f"{path!s:.60}: cannot be written ({reason}); choose another --output") from error
    kind = "a folder" if place.is_dir() else "no plain file"
    raise InputError(f"{path}: {kind}; expected the name of a file")


def free_bytes(place: Path) -> int:
    """What the disk of a folder has left, whether or not the folder is there yet."""
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def read_plain(path: Path) -> bytes:
    """The content of a plain file: a pipe would be waited for, and a device may have no end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # noqa: PTH123 - Path.open would wait for a pipe
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        return file.read()


def blocks_of(path: Path) -> Iterator[bytes]:
    """The content of a file, piece by piece."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def hash_file(path: Path) -> str:
    """SHA-256 of a file of any size."""
    state = hashlib.sha256()
    for block in blocks_of(path):
        state.update(block)
    return state.hexdigest()


def digest_of_files(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 of names below a folder, and contents."""
    state = hashlib.sha256()
    for path in files:
        state.update(f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n".encode())
    return state.hexdigest()


def frame_header(payload: bytes) -> bytes:
    """What stands before the payload: a mark, its length and its SHA-256."""
    return MAGIC + len(payload).to_bytes(LENGTH_BYTES, "little") + hashlib.sha256(payload).digest()


def unframe(data: bytes, place: str) -> bytes:
    """The payload of framed bytes; any change of any bit is refused."""
    if data[: len(MAGIC)] != MAGIC or len(data) < FRAME_BYTES:
        raise InputError(
            f"{place}: {len(data)} bytes that unio4 did not write, or not whole; remove the file"
        )
    stated = int.from_bytes(data[len(MAGIC) : len(MAGIC) + LENGTH_BYTES], "little")
    payload = data[FRAME_BYTES:]
    if len(payload) != stated:
        raise InputError(
            f"{place}: {len(payload)} bytes of content, its header says {stated}; remove the file"
        )
    if hashlib.sha256(payload).digest() != data[FRAME_BYTES - DIGEST_BYTES : FRAME_BYTES]:
        raise InputError(f"{place}: its content does not fit its checksum; remove the file")
    return payload
