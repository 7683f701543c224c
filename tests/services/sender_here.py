"""The sender of a run as a thread: a process of its own takes eight seconds to import MLflow."""

import subprocess
import threading
from pathlib import Path

import pytest

from unio4_lib.tracking import sender, tracker
from unio4_lib.tracking.delivery import DETOURS

LONGEST_SECONDS = 240.0  # a busy machine is slow, not stuck


class SenderHere:
    """What a tracker sees of its sender's process: an input that can be closed, and an end."""

    def __init__(self, uri: str, folder: Path, leftovers: Path | None) -> None:
        self._input_ended = threading.Event()
        told = (folder, uri, leftovers, self._input_ended)
        self._thread = threading.Thread(target=sender.accompany, args=told)
        self._thread.start()
        self.stdin, self.pid = self, 0

    def close(self) -> None:
        self._input_ended.set()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("the sender", seconds)


def send_here(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone; not for tests of the process itself: its priority, its end, its imports."""
    for name, value in {**tracker.SENDER_SETTINGS, **dict.fromkeys(DETOURS, "false")}.items():
        patch.setenv(name, value)
    patch.setattr(tracker, "start_sender", SenderHere)
    patch.setattr(tracker, "step_back", lambda _: None)
    patch.setattr(tracker, "PATIENCE_SECONDS", LONGEST_SECONDS)
