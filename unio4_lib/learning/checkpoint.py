"""Checkpoints: written whole, checked before use, kept on disk and (in the background) in a store.

PyTorch is imported with the first state: stages that save none run where it is not installed.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from unio4_lib.errors import InputError
from unio4_lib.files import frame_header, read_plain, unframe, write_atomically

log = logging.getLogger(__name__)

# state_file imports torch: only where a state is written or read, since not every stage has one.

GENERATIONS = 2  # while one is written, the other stays as it is


class ByteStore(Protocol):
    """What a checkpoint needs of a store of artifacts."""

    @property
    def uri(self) -> str: ...

    def put_bytes(self, key: str, data: bytes) -> None: ...

    def get_bytes(self, key: str) -> bytes | None: ...

    def delete_bytes(self, key: str) -> None: ...


def save_state(path: Path, state: Any) -> None:
    """Write a nested state of tensors, arrays and JSON values; all of it or nothing appears."""
    from unio4_lib.learning.state_file import encode_state

    payload = encode_state(state)
    write_atomically(path, frame_header(payload), payload)


def _checked(state: Any) -> dict[str, Any] | None:
    """What a reader of a checkpoint has found: one of ours, or nothing."""
    if state is None:
        return None
    if not isinstance(state, dict) or not isinstance(state.get("sequence"), int) or "state" not in state:
        raise InputError("the state has no sequence; remove the file to start anew")
    return state


def load_state(path: Path) -> Any:
    """Read what ``save_state`` wrote; any change of any bit is refused."""
    from unio4_lib.learning.state_file import decode_state

    try:
        data = read_plain(path)
    except OSError as error:
        raise InputError(f"{path}: the state cannot be read ({error.strerror})") from error
    return decode_state(unframe(data, str(path)), str(path))


class Checkpointer:
    """Saves on a time interval and finds the newest state again, here or in the store.

    The disk is written before ``save`` returns; the store follows in the background, newest first, and
    its absence never stops training: ``problem`` says what is wrong until an upload succeeds again.
    """

    def __init__(
        self,
        interval_seconds: float,
        folder: Path,
        store: ByteStore | None = None,
        key: str = "checkpoints/run",
    ) -> None:
        self.interval_seconds, self.folder, self.store, self.key = interval_seconds, folder, store, key
        self.problem: str | None = None
        self._sequence = 0
        self._saved_at = time.monotonic()
        self._changed = threading.Condition()
        self._waiting: tuple[str, bytes] | None = None
        self._uploading = self._closing = False
        self._uploader: threading.Thread | None = None

    def due(self) -> bool:
        """Whether the interval has passed since the last checkpoint."""
        return time.monotonic() - self._saved_at >= self.interval_seconds

    def offer(self, make_state: Callable[[], Any]) -> bool:
        """Save if it is time; only then is the state collected."""
        if not self.due():
            return False
        self.save(make_state())
        return True

    def save(self, state: Any) -> None:
        """Save now: to disk before this returns, to the store soon after."""
        from unio4_lib.learning.state_file import encode_state

        self._sequence += 1
        payload = encode_state({"sequence": self._sequence, "state": state})
        name = f"state-{self._sequence % GENERATIONS}.ckpt"
        path = self.folder / name
        try:
            write_atomically(path, frame_header(payload), payload)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        self._saved_at = time.monotonic()
        if self.store is not None:
            with self._changed:
                self._waiting = (f"{self.key}/{name}", payload)
                self._changed.notify_all()
            self._start()

    def load(self) -> Any | None:
        """The newest state that is whole; None if nothing was ever saved.

        A damaged checkpoint is passed over with a warning that names it; if there is no whole one, it is
        an error.
        """
        found: list[dict[str, Any]] = []
        damaged: list[InputError] = []
        for read in self._readers():
            try:
                state = _checked(read())
            except InputError as error:
                damaged.append(error)
                log.warning("%s", error)
                continue
            if state is not None:
                found.append(state)
        if not found:
            if damaged:
                raise damaged[0]
            return None
        newest = max(found, key=lambda entry: entry["sequence"])
        self._sequence = newest["sequence"]
        return newest["state"]

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the store has the newest checkpoint; whether it has."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._uploading), timeout)
            return not (self._waiting or self._uploading) and self.problem is None

    def close(self, timeout: float | None = None) -> bool:
        """Upload what is waiting and end; whether the store has the newest checkpoint."""
        done = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._waiting = None
            self._changed.notify_all()
        return done

    def discard(self) -> None:
        """Remove all checkpoints: what they were for is finished."""
        with self._changed:
            self._waiting = None
        self.flush()
        for number in range(GENERATIONS):
            name = f"state-{number}.ckpt"
            (self.folder / name).unlink(missing_ok=True)
            if self.store is not None:
                self.store.delete_bytes(f"{self.key}/{name}")

    def _readers(self) -> list[Callable[[], dict[str, Any] | None]]:
        names = [f"state-{number}.ckpt" for number in range(GENERATIONS)]
        readers: list[Callable[[], dict[str, Any] | None]] = []
        for name in names:
            path = self.folder / name
            if path.exists():
                readers.append(partial(load_state, path))
            if self.store is not None:
                readers.append(partial(self._read_from, self.store, name))
        return readers

    def _read_from(self, store: ByteStore, name: str) -> dict[str, Any] | None:
        key = f"{self.key}/{name}"
        payload = store.get_bytes(key)
        if payload is None:
            return None
        from unio4_lib.learning.state_file import decode_state

        state: dict[str, Any] = decode_state(payload, f"{store.uri}/{key}")
        return state

    def _start(self) -> None:
        if self._uploader is None or not self._uploader.is_alive():
            self._closing = False
            self._uploader = threading.Thread(target=self._upload_all, name="checkpoints", daemon=True)
            self._uploader.start()

    def _upload_all(self) -> None:
        assert self.store is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                if self._waiting is None:
                    return
                (key, payload), self._waiting = self._waiting, None
                self._uploading = True
            problem = None
            try:
                self.store.put_bytes(key, payload)
            except Exception as error:  # whatever a store does, training goes on
                problem = f"checkpoint not in the store yet: {error}"
                log.warning("%s", problem)
            with self._changed:
                self.problem, self._uploading = problem, False
                self._changed.notify_all()
