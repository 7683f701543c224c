"""Steps of training that a GPU carries out by itself: recorded once, then replayed without Python.

A small network's step is some hundred operations of microseconds, and a GPU waits for Python between them.
A recorded step is one call. It does the same work in the same memory each time, so what changes from step
to step has to be on the device: counts, step sizes, draws, rows. Where Python decides, steps are told apart
by their phase, and each phase is recorded for itself.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

REHEARSALS = 3  # steps of a phase before it is recorded: libraries make their workspaces in them

Step = Callable[[], dict[str, Tensor]]
Work = Callable[[], None]


@runtime_checkable
class Steady(Protocol):
    """Whose steps of one phase do the same work in the same memory, and read no number from it."""

    def step(self) -> dict[str, Tensor]: ...

    def phase(self) -> Hashable:
        """What the next step will be like; None where it has work for Python."""
        ...

    def draws_from(self) -> Sequence[torch.Generator]:
        """All generators that steps use."""
        ...


class Recorder(Protocol):
    """A device that can record steps."""

    def rehearse(self, step: Step) -> dict[str, Tensor]:
        """Carry out a step that is like one that will be recorded."""
        ...

    def record(self, step: Step, draws: Sequence[torch.Generator]) -> Step:
        """A step that does the same again; it has been carried out once. It says what it says in the same
        memory each time."""
        ...


_recording = Lock()  # stages on threads of one process record one after the other


class CudaGraphs:
    """Steps as CUDA graphs."""

    def rehearse(self, step: Step) -> dict[str, Tensor]:
        """Not on the default stream, whose work no recording may wait for."""
        present, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            said = step()
        present.wait_stream(aside)
        return said

    def record(self, step: Step, draws: Sequence[torch.Generator]) -> Step:
        graph = torch.cuda.CUDAGraph()
        for stream in draws:
            graph.register_generator_state(stream)
        with _recording, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            said = step()
        graph.replay()  # recording does nothing but that

        def again() -> dict[str, Tensor]:
            graph.replay()
            return said

        return again


# Python's part of the step that this thread records.
_noted: ContextVar[list[Work] | None] = ContextVar("noted", default=None)


def also_when_replayed(work: Work) -> None:
    """Do what Python has to do in a step, such as to count it: now, and whenever the step is replayed."""
    work()
    if (noted := _noted.get()) is not None:
        noted.append(work)


class Replays:
    """The steps of somebody, one after the other, recorded and replayed by phase."""

    def __init__(self, steady: Steady, recorder: Recorder) -> None:
        self.steady, self.recorder = steady, recorder
        self.rehearsed: Counter[Hashable] = Counter()
        self.recorded: dict[Hashable, tuple[Step, list[Work]]] = {}

    def step(self) -> dict[str, Tensor]:
        phase = self.steady.phase()
        if phase is None:
            return self.steady.step()
        if phase in self.recorded:
            again, noted = self.recorded[phase]
            said = again()
            for work in noted:
                work()
            return said
        if self.rehearsed[phase] < REHEARSALS:
            self.rehearsed[phase] += 1
            return self.recorder.rehearse(self.steady.step)
        return self._record(phase)

    def _record(self, phase: Hashable) -> dict[str, Tensor]:
        said: list[dict[str, Tensor]] = []

        def watched() -> dict[str, Tensor]:
            said.append(self.steady.step())
            return said[-1]

        noted: list[Work] = []
        token = _noted.set(noted)
        try:
            again = self.recorder.record(watched, self.steady.draws_from())
        finally:
            _noted.reset(token)
        self.recorded[phase] = again, noted
        return said[-1]


def fastest(trainer: object, plain: Step) -> Step:
    """How to take steps: recorded ones where they are steady and on a GPU, else one operation at a time."""
    if isinstance(trainer, Steady) and all(part.device.type == "cuda" for part in trainer.draws_from()):
        return Replays(trainer, CudaGraphs()).step
    return plain
