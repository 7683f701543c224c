"""What commands need of the process they run in: where progress goes, and how it is asked to end."""

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from unio4_lib.training.journal import Preemption


def on_termination() -> "Preemption":
    """What stages ask whether this process is to end: SIGTERM says so."""
    from unio4_lib.training.journal import Preemption

    preemption = Preemption()
    signal.signal(signal.SIGTERM, lambda *_: preemption.request())
    return preemption


def progress_console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
