"""How off-policy learners move: they state losses; gradients, Adam, schedules and slow copies are here.

A loss moves the parameters of its group and no others: gradients are asked for there alone, so that a
policy may be improved along Q without a thought of what that does to Q. They are used as they come, with no
buffers to clear and one call of Adam for a group.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unio4_lib.learning.loop import Metrics

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam

Schedule = Callable[[int], float]  # share of the step size, by the steps taken so far
Slow = tuple[nn.Module, nn.Module]  # a slow copy, and the network that it follows


def constant(_: int) -> float:
    return 1.0


def half_cosine(steps: int) -> Schedule:
    """From 1 to 0 over so many steps; beyond them it is 1 again."""
    return lambda taken: 1.0 if taken >= steps else 0.5 * (1.0 + math.cos(math.pi * taken / steps))


class Group:
    """Parameters that one loss moves, by Adam; ``parts`` are modules or single parameters."""

    def __init__(
        self, parts: Sequence[nn.Module | nn.Parameter], learning_rate: float, share: Schedule = constant
    ) -> None:
        self.parameters: list[Tensor] = [
            parameter
            for part in parts
            for parameter in (part.parameters() if isinstance(part, nn.Module) else (part,))
        ]
        self.learning_rate, self.share, self.taken = learning_rate, share, 0
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.counts = [torch.zeros((), device=part.device) for part in self.parameters[:1]]

    @torch.no_grad()
    def move(self, gradients: Sequence[Tensor]) -> None:
        """One step of Adam."""
        rate = self.learning_rate * self.share(self.taken)
        self.taken += 1
        self.counts[0] += 1
        torch._fused_adam_(
            self.parameters,
            [part.contiguous() for part in gradients],  # it walks through memory, whatever the strides
            self.means,
            self.squares,
            [],
            self.counts * len(self.parameters),
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def forget(self) -> None:
        """Begin as if no step had been taken."""
        self.taken = 0
        for part in (*self.means, *self.squares, *self.counts):
            part.zero_()

    def state_dict(self) -> dict[str, Any]:
        copies = {name: [part.clone() for part in getattr(self, name)] for name in ("means", "squares")}
        return copies | {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("means", "squares"):
            for part, saved in zip(getattr(self, name), state[name], strict=True):
                part.copy_(saved)
        self.taken = state["taken"]
        self.counts[0].fill_(self.taken)


class Updates:
    """Groups by the names of the losses that move them, and slow copies that follow at a ``rate``."""

    def __init__(self, groups: Mapping[str, Group], slow: Sequence[Slow] = (), rate: float = 1.0) -> None:
        self.groups, self.rate = dict(groups), rate
        self._copies: list[Tensor] = [part for copy, _ in slow for part in copy.parameters()]
        self._leaders: list[Tensor] = [part for _, leader in slow for part in leader.parameters()]

    def step(self, losses: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> Metrics:
        """Move each group by its losses [B], of which the mean counts, weighted where ``weights`` [B] say so.

        All gradients are those of the networks as they were.
        """
        totals = {name: reduce(losses[name], (weights or {}).get(name)) for name in losses}
        found = [torch.autograd.grad(total, self.groups[name].parameters) for name, total in totals.items()]
        for name, gradients in zip(totals, found, strict=True):
            self.groups[name].move(gradients)
        return {f"learner/{name}_loss": total.detach() for name, total in totals.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Let slow copies come nearer to their networks by a share of the distance (Polyak)."""
        torch._foreach_lerp_(self._copies, self._leaders, self.rate)

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
