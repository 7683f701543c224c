"""What commands need of the process they run in: where progress goes, and how it is asked to end."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from unio4_lib.learning.journal import Preemption


@contextmanager
def on_termination() -> "Iterator[Preemption]":
    """What stages ask whether this process is to end: SIGTERM says so, as long as they run."""
    from unio4_lib.learning.journal import Preemption

    preemption = Preemption()
    before = signal.signal(signal.SIGTERM, lambda *_: preemption.request())
    try:
        yield preemption
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def results_only() -> Iterator[None]:
    """Leave standard output to the result: what environments and libraries print goes with the progress."""
    with redirect_stdout(sys.stderr):
        yield


def warn(text: str) -> None:
    """A line that is no progress: --quiet does not silence it."""
    print(text, file=sys.stderr, flush=True)


def progress_console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
