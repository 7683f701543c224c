"""A device for steps to be recorded on where there is no GPU: it keeps every operation, and does them again.

Like a CUDA graph it knows nothing of Python: what was a number when the step was recorded stays that number,
all operations work in the memory that they had, and only generators that were named go on. What a GPU could
not record is refused.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unio4_lib.learning.replays import Step

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")
FROM_PYTHON = ("lift_fresh",)  # new numbers that go to the device


class NotRecordableError(AssertionError):
    """A GPU cannot record this."""


class Tape(TorchDispatchMode):
    """Operations with what they worked on."""

    def __init__(self, draws: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.seeds = {part.initial_seed() for part in draws}  # Python sees another object in each call
        self.played: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._check(func, args, kwargs)
        found = func(*args, **kwargs)
        if not func.is_view:
            self.played.append((func, args, kwargs, found))
        return found

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        name = func.__name__.partition(".")[0]
        if name in WAITING:
            raise NotRecordableError(f"{name}: Python waits for a number")
        if name in FROM_PYTHON:
            raise NotRecordableError(f"{name}: numbers come from Python")
        if name in ("index", "index_put", "index_put_") and any(
            isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        ):
            raise NotRecordableError(f"{name}: how many rows there are is data")
        draws = torch.Tag.nondeterministic_seeded in func.tags
        used = kwargs.get("generator")
        if draws and (used is None or used.initial_seed() not in self.seeds):
            raise NotRecordableError(f"{name}: draws from a generator that nobody named")

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, found in self.played:
            again = func(*args, **kwargs)
            for old, new in zip(tensors_of(found), tensors_of(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors_of(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [part for part in found if isinstance(part, Tensor)] if isinstance(found, list | tuple) else []


class StandIn:
    """The recorder that tapes."""

    def __init__(self) -> None:
        self.rehearsed = self.replayed = 0

    def rehearse(self, step: Step) -> dict[str, Tensor]:
        self.rehearsed += 1
        return step()

    def record(self, step: Step, draws: Sequence[torch.Generator]) -> Step:
        tape = Tape(draws)
        with pytest.MonkeyPatch.context() as patch, tape:
            for name in ("tolist", "numpy", "cpu"):  # which are no operation where tensors are on the CPU
                patch.setattr(Tensor, name, refused(name))
            said = step()

        def again() -> dict[str, Tensor]:
            self.replayed += 1
            tape.play()
            return said

        return again


def refused(name: str) -> Any:
    def call(*_: Any) -> None:
        raise NotRecordableError(f"{name}: Python waits for numbers")

    return call
