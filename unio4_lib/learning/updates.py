"""How learners move: they state losses; gradients, Adam, schedules and slow copies are here.

A loss moves the parameters of its group and no others: gradients are asked for there alone, so that a
policy may be improved along Q without a thought of what that does to Q. They are used as they come, with no
buffers to clear and one call of Adam for a group. Schedules count on the device: a step that is captured
and replayed (``learning/replays.py``) goes on along them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.replays import also_when_replayed

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam

Schedule = Callable[[Tensor], Tensor]  # share of the step size [], by the steps taken so far []
Slow = tuple[nn.Module, nn.Module]  # a slow copy, and the network that it follows


def half_cosine(steps: int) -> Schedule:
    """From 1 to 0 over so many steps; beyond them it is 1 again."""
    return lambda taken: torch.where(taken >= steps, 1.0, 0.5 * (1.0 + (math.pi / steps * taken).cos()))


def straight(steps: int, last: float = 0.0) -> Schedule:
    """From 1 along a line to the last value, which stays."""
    return lambda taken: last + (1.0 - last) * (1.0 - taken / steps).clamp(min=0.0)


class Group:
    """Parameters that one loss moves, by Adam; ``parts`` are modules or single parameters.

    ``decay`` is that of weights, apart from the gradient (AdamW). ``learning_rate`` may be set anew at any
    time. How many steps were taken is known twice: to Python as ``taken``, and on the device as ``clock``,
    which schedules and losses go by.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module | nn.Parameter],
        learning_rate: float,
        share: Schedule | None = None,
        *,
        decay: float = 0.0,
        epsilon: float = EPSILON,
    ) -> None:
        self.parameters: list[Tensor] = [
            parameter
            for part in parts
            for parameter in (part.parameters() if isinstance(part, nn.Module) else (part,))
        ]
        self.learning_rate, self.share = learning_rate, share
        self.decay, self.epsilon = decay, epsilon
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._taken, self._count = 0, torch.zeros((), device=self.parameters[0].device)

    @property
    def taken(self) -> int:
        """Steps so far."""
        return self._taken

    @taken.setter
    def taken(self, steps: int) -> None:
        self._taken = steps
        self._count.fill_(steps)

    @property
    def clock(self) -> Tensor:
        """Steps so far [], on the device, in double precision."""
        return self._count.double()

    def rate(self) -> float | Tensor:
        """Size of the next step."""
        return self.learning_rate if self.share is None else self.learning_rate * self.share(self.clock)

    def _taken_one(self) -> None:
        self._taken += 1

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of a loss [], in memory as their parameters: Adam walks through it, whatever the strides."""
        return [part.contiguous() for part in torch.autograd.grad(loss, self.parameters)]

    @torch.no_grad()
    def move(self, gradients: Sequence[Tensor]) -> None:
        """One step of Adam."""
        rate = self.rate()
        also_when_replayed(self._taken_one)
        self._count += 1
        torch._fused_adamw_(
            self.parameters,
            list(gradients),
            self.means,
            self.squares,
            [],
            [self._count] * len(self.parameters),
            lr=rate.float() if isinstance(rate, Tensor) else rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.decay,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def forget(self) -> None:
        """Begin as if no step had been taken."""
        self.taken = 0
        for part in (*self.means, *self.squares):
            part.zero_()

    def state_dict(self) -> dict[str, Any]:
        copies = {name: [part.clone() for part in getattr(self, name)] for name in ("means", "squares")}
        return copies | {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("means", "squares"):
            for part, saved in zip(getattr(self, name), state[name], strict=True):
                part.copy_(saved)
        self.taken = state["taken"]


class Updates:
    """Groups by the names of the losses that move them, and slow copies that follow at a ``rate``."""

    def __init__(self, groups: Mapping[str, Group], slow: Sequence[Slow] = (), rate: float = 1.0) -> None:
        self.groups, self.rate = dict(groups), rate
        self._copies: list[Tensor] = [part for copy, _ in slow for part in copy.parameters()]
        self._leaders: list[Tensor] = [part for _, leader in slow for part in leader.parameters()]

    def step(self, losses: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> Metrics:
        """Move each group by its losses, of which the mean counts, weighted where ``weights`` [B] say so.

        All gradients are those of the networks as they were.
        """
        totals = {name: reduce(losses[name], (weights or {}).get(name)) for name in losses}
        found = [self.groups[name].gradients(total) for name, total in totals.items()]
        for name, gradients in zip(totals, found, strict=True):
            self.groups[name].move(gradients)
        return {f"learner/{name}_loss": total.detach() for name, total in totals.items()}

    @torch.no_grad()
    def follow(self, rate: float | None = None) -> None:
        """Let slow copies come nearer to their networks by a share of the distance (Polyak)."""
        torch._foreach_lerp_(self._copies, self._leaders, self.rate if rate is None else rate)

    def forget(self) -> None:
        """Begin every group as if no step had been taken."""
        for group in self.groups.values():
            group.forget()

    def state_dict(self) -> dict[str, Any]:
        return {name: group.state_dict() for name, group in self.groups.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, group in self.groups.items():
            group.load_state_dict(state[name])


def reduce(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """The one place where losses of rows become a number."""
    return losses.mean() if weights is None else (weights * losses).mean()


@torch.no_grad()
def limit_norm(gradients: list[Tensor], most: float) -> None:
    """Scale gradients so that their norm, over all of them together, is at most so large."""
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
