"""What is to be tracked, on disk first: one append-only file of JSON lines for each MLflow run.

A line is written with one call and read only once it is whole, so a crash loses at most the line that was
being written. How far a file has been delivered stands beside it in ``<name>.sent``; delivering a line
twice changes nothing on the server, so that number may be behind.
"""

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unio4_lib.errors import InputError
from unio4_lib.files import read_plain, write_atomically

Event = dict[str, Any]

TARGET, FILES, REFUSED, STATE = "target.json", "files", "refused.txt", "state.json"
OUTBOX, SENT = ".jsonl", ".sent"
SCRATCH = "scratch"  # for temporary files of who sends, who may be killed while there are some
WRITER_LOCK, SENDER_LOCK = "writer.lock", "sender.lock"
RUN_OUTBOX = "run"


@dataclass(frozen=True)
class Target:
    """Where the lines of a spool belong; the password of an address is never written."""

    uri: str
    experiment: str
    run_name: str
    run_key: str
    parent_run_id: str | None = None  # a run of someone else's (Kubeflow Pipelines) to nest under
    register: str | None = None  # the name of the registered model that the policy becomes a version of
    alias: str | None = None

    def save(self, folder: Path) -> None:
        write_atomically(folder / TARGET, json.dumps(asdict(self), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> "Target":
        try:
            found = json.loads(read_plain(folder / TARGET))
            if not all(value is None or isinstance(value, str) for value in found.values()):
                raise ValueError("its values are texts")
            return cls(**found)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{folder / TARGET}: cannot be read ({error}); expected the spool of a run"
            ) from error


class Outbox:
    """The file behind one MLflow run; threads may share it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{OUTBOX}"
        torn = path.exists() and not _ends_with_newline(path)
        self._file = path.open("ab", buffering=0)
        if torn:  # the end of a line that a crash cut off; readers skip it
            self._file.write(b"\n")

    def append(self, kind: str, **values: Any) -> None:
        """One event; once this returns it survives the end of the process."""
        event = {"kind": kind, "time": time.time_ns() // 1_000_000, **values}
        line = json.dumps(event).encode() + b"\n"
        with self._lock:
            self._file.write(line)

    def append_file(self, kind: str, path: Path, **values: Any) -> None:
        """An event about a file or folder, which is copied: the original may go at once."""
        place = Path(FILES) / self.name / f"{time.time_ns()}" / path.name
        copy = self.folder / place
        copy.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copy2(path, copy)
        self.append(kind, path=str(place), **values)

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def outboxes(folder: Path) -> list[Path]:
    """The outboxes of a spool in the order in which they were begun, that of the run itself first."""

    def begun(path: Path) -> tuple[bool, int, str]:
        event = first_event(path)
        return path.stem != RUN_OUTBOX, event["time"] if event is not None else 0, path.name

    files = [path for path in folder.glob(f"*{OUTBOX}") if path.is_file() and not path.is_symlink()]
    return sorted(files, key=begun)


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Whole lines from an offset on, each with the offset behind it; torn lines are passed over."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            event = _parse(line)
            if event is not None:
                yield event, offset


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(event, dict) and isinstance(event.get("kind"), str)
    return event if known and isinstance(event.get("time"), int) else None


def first_event(path: Path) -> Event | None:
    """The line that says which run the outbox is about."""
    return next((event for event, _ in read_events(path)), None)


def sent_offset(path: Path) -> int:
    """How far an outbox was delivered; a number that cannot be read means from the start."""
    try:
        offset = int(read_plain(path.with_suffix(SENT)))
    except (OSError, ValueError):
        return 0
    return offset if 0 <= offset <= path.stat().st_size else 0


def record_sent(path: Path, offset: int) -> None:
    write_atomically(path.with_suffix(SENT), str(offset).encode())


def count_waiting(folder: Path) -> int:
    """Lines that have not been delivered yet."""
    return sum(1 for path in outboxes(folder) for _ in read_events(path, sent_offset(path)))


def end_open_outboxes(folder: Path) -> None:
    """Close what a process left open when it died, so that no run shows as running for ever."""
    for path in outboxes(folder):
        kinds = [event["kind"] for event, _ in read_events(path)]
        if kinds and kinds[-1] != "end":
            outbox = Outbox(folder, path.stem)
            outbox.append("end", status="KILLED")
            outbox.close()


@contextmanager
def locked(folder: Path, name: str) -> Iterator[bool]:
    """Hold a lock of the spool, or say that another process does; it ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def spools_below(folder: Path) -> list[Path]:
    """The folder itself, or all spools of the runs or stages in it."""
    patterns = (TARGET, f"*/{TARGET}", f"*/*/{TARGET}")
    return sorted({path.parent.resolve() for pattern in patterns for path in folder.glob(pattern)})
