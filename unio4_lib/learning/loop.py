"""The one training loop: steps, logging, early stop, time budget, checkpoints and a NaN guard.

Trainers only know how to take a step; everything about cadence lives here.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from unio4_lib.learning.memory import keep_freed_memory
from unio4_lib.learning.replays import fastest

Check = Callable[[], None]
Metrics = dict[str, Tensor]  # detached 0-d tensors (or [E], one for each member) on the device


class Trainer(Protocol):
    """What the loop needs to know of any learner."""

    def step(self) -> Metrics:
        """One optimizer step."""
        ...

    def evaluate(self) -> Metrics:
        """Hold-out figures; called every ``evaluate_every`` steps."""
        ...

    def finished(self) -> bool:
        """Whether more steps are known to be useless (early stop)."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class LogEntry:
    """Metrics of one moment, as plain numbers."""

    step: int
    seconds: float
    values: dict[str, float]


class TrainingDiverged(RuntimeError):  # noqa: N818 - reads as a statement of what happened
    """A loss is no longer a finite number."""


def run_loop(
    trainer: Trainer,
    steps: int,
    *,
    name: str,
    evaluate_every: int,
    log_every: int = 100,
    start: int = 0,
    checkpoint: Callable[[int, Check], None] | None = None,
    kept: Sequence[int] = (),
) -> Iterator[LogEntry]:
    """Train and yield what there is to log; the caller decides what becomes of it.

    Metrics stay on the device between two entries, so that no step waits for it. ``checkpoint`` is
    offered every step with the number of steps done, after what there was to log, and decides itself
    whether it is time; then it calls the check that it was given, so that no state is kept whose metrics
    are no numbers. ``kept`` are the steps of what was kept. With ``start`` a trainer goes on that has taken
    so many steps.
    """
    keep_freed_memory()
    began, take_step = time.perf_counter(), fastest(trainer, trainer.step)
    if start > 0 and trainer.finished():
        return
    for step in range(start + 1, steps + 1):
        metrics = take_step()
        due = step % evaluate_every == 0 or step == steps
        if due:
            metrics = {**metrics, **trainer.evaluate()}
        if due or step % log_every == 0:
            values = to_numbers(metrics)
            guard(name, step, values, kept)
            yield LogEntry(step, time.perf_counter() - began, values)
        if checkpoint is not None:
            checkpoint(step, partial(_guard_metrics, name, step, metrics, kept))
        if due and trainer.finished():
            return


def to_numbers(metrics: Metrics) -> dict[str, float]:
    """One transfer from the device for all metrics; a tensor [E] becomes one number for each member."""
    if not metrics:
        return {}
    flat = torch.cat([value.detach().reshape(-1).float() for value in metrics.values()]).tolist()
    numbers: dict[str, float] = {}
    at = 0
    for key, value in metrics.items():
        count = value.numel()
        if value.dim() == 0:
            numbers[key] = flat[at]
        else:
            numbers.update({f"{key}/{i}": flat[at + i] for i in range(count)})
        at += count
    return numbers


def _guard_metrics(name: str, step: int, metrics: Metrics, kept: Sequence[int]) -> None:
    guard(name, step, to_numbers(metrics), kept)


def guard(name: str, step: int, values: dict[str, float], kept: Sequence[int]) -> None:
    """Refuse to go on with what is no number; ``kept`` are the steps of checkpoints, all from before."""
    broken = next((key for key, value in values.items() if not math.isfinite(value)), None)
    if broken is not None:
        whole = f"the last good checkpoint is of step {kept[-1]}" if kept else "no checkpoint was made yet"
        raise TrainingDiverged(
            f"{name}: {broken} is {values[broken]} at step {step}; "
            f"lower the learning rate or look for outliers in the dataset; {whole}"
        )
