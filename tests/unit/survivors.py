"""Processes that are still at work when they should not be."""

import time
from collections.abc import Callable
from pathlib import Path


def left_behind(word: str) -> list[str]:
    """Command lines of living processes that have a word in them; the dead have none."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if word in line:
            found.append(line)
    return found


def until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for what must come; a busy machine is slow, not stuck."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)
