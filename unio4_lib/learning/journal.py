"""What a long training writes down on its way, so that another process can go on from there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from unio4_lib.errors import Preempted

State = Callable[[], Any]
Metrics = dict[str, float]


class Preemption:
    """Whether this process was asked to end; may be asked from a signal handler."""

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        self.requested = True

    def check(self) -> None:
        """Where nothing has to be saved: end here if asked to."""
        if self.requested:
            raise Preempted("asked to end; what is finished is kept, start again to go on")


class Checkpoints(Protocol):
    """Where states are kept: see ``training.checkpoint.Checkpointer``."""

    def due(self) -> bool: ...

    def save(self, state: Any) -> None: ...


@dataclass
class Journal:
    """Checkpoints and log entries of one training; by default nobody wants them.

    ``resumed`` is the state to begin from. Trainings offer their state after every step; it is collected
    only when it is time, or when the process was asked to end.
    """

    checkpoints: Checkpoints | None = None
    resumed: Any | None = None
    on_entry: Callable[[int, Metrics], None] | None = None
    preemption: Preemption = field(default_factory=Preemption)
    say: Callable[[str], None] | None = None

    def entry(self, step: int, values: Metrics) -> None:
        """Tell whoever follows the training."""
        if self.on_entry is not None:
            self.on_entry(step, values)

    def offer(self, state: State) -> bool:
        """A moment at which the training can be stopped and taken up again; whether the state was kept."""
        asked = self.preemption.requested
        due = self.checkpoints is not None and (asked or self.checkpoints.due())
        if due and self.checkpoints is not None:
            self._save(self.checkpoints, state)
        if asked:
            self.preemption.check()
        return due and self.checkpoints is not None

    def _save(self, checkpoints: Checkpoints, state: State) -> None:
        try:
            checkpoints.save(state())
        except NotImplementedError as error:  # an environment that cannot tell its state
            self.checkpoints = None
            if self.say is not None:
                self.say(f"note: no checkpoints, an interruption begins this stage anew: {error}")
