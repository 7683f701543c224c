"""Worlds small enough to know the truth of, as datasets, models and critics."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.transitions import Transitions
from unio4_lib.judging.dynamics import Step
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.nets.policy import GaussianPolicy, PolicySpec
from unio4_lib.settings.model import PrepareConfig

STRIDE = 0.25  # how far the largest action moves the point mass


def make_transitions(
    observations: Any, actions: Any, rewards: Any, next_observations: Any, terminals: Any, timeouts: Any
) -> Transitions:
    """Rows of any numbers as a dataset with actions in the unit box."""
    actions = np.asarray(actions, np.float32)
    box = (1.0,) * actions.shape[1]
    return Transitions.build(
        observations=np.asarray(observations, np.float32),
        actions=actions,
        rewards=np.asarray(rewards, np.float32),
        next_observations=np.asarray(next_observations, np.float32),
        terminals=np.asarray(terminals, np.bool_),
        timeouts=np.asarray(timeouts, np.bool_),
        info=DatasetInfo("Test-v0", {}, tuple(-x for x in box), box, "test"),
    )


def following(observations: np.ndarray) -> np.ndarray:
    """Each row's successor where rows are all that is known; behind an end stands a state of elsewhere."""
    return np.roll(observations, -1, axis=0)


def make_data(transitions: Transitions, *, discount: float = 0.9, normalize: bool = False) -> OfflineData:
    config = PrepareConfig(normalize_observations=normalize, reward_scaling="none")
    return OfflineData.build(transitions, config, discount=discount, device=torch.device("cpu"))


def reward(positions: Any) -> Any:
    """Of the point mass, for being at a position: 1 at the origin, 0 at distance 1."""
    return 1.0 - positions**2


def point_mass_transitions(
    episodes: int = 60, length: int = 25, *, gain: float = 0.8, noise: float = 0.05, seed: int = 0
) -> Transitions:
    """x' = x + STRIDE a + noise; the behavior drives toward 0.6, off the best place, with random extra."""
    g = np.random.default_rng(seed)
    x = g.uniform(-1.0, 1.0, episodes)
    columns = []
    for _ in range(length):
        a = np.clip(gain * (0.6 - x) + g.normal(0.0, 0.5, episodes), -1.0, 1.0)
        following = x + STRIDE * a + g.normal(0.0, noise, episodes)
        columns.append((x, a, reward(following), following))
        x = following
    x, a, r, following = (np.stack(column, axis=1).reshape(-1) for column in zip(*columns, strict=True))
    ends = np.tile(np.arange(length) == length - 1, episodes)
    return make_transitions(x[:, None], a[:, None], r, following[:, None], np.zeros_like(ends), ends)


class PointMassModel:
    """The true point mass in the place of a learned model; it ends beyond the wall."""

    def __init__(
        self, members: int = 2, *, noise: float = 0.05, wall: float = np.inf, survival: float = 1.0
    ) -> None:
        self.members, self.noise, self.wall, self.survival = members, noise, wall, survival

    def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None, turn: int = 0) -> Step:
        assert observations.shape[0] == self.members
        following = observations + STRIDE * actions.clamp(-1.0, 1.0)
        if noise is not None:
            following = following + self.noise * noise[..., :-1]
        alive = (following[..., 0].abs() < self.wall).float()
        return Step(following, reward(following[..., 0]), self.survival * alive)


class FunctionCritics:
    """Any Q(s, a) and V(s) in the place of learned critics."""

    def __init__(self, q: Callable[[Tensor, Tensor], Tensor], v: Callable[[Tensor], Tensor]) -> None:
        self.min_q, self.values = q, v


def zero_critics() -> Any:
    return FunctionCritics(lambda s, a: torch.zeros(s.shape[:-1]), lambda s: torch.zeros(s.shape[:-1]))


def linear_policies(gains: list[float], offsets: list[float] | None = None) -> GaussianPolicy:
    """Policies for one observation and one action with mean tanh(offset - gain x) and std 0.1."""
    policy = GaussianPolicy(PolicySpec(len(gains), 1, 1, (2,), "relu", "shared")).requires_grad_(False)
    layer: Any = policy.net.layers[0]
    output = policy.net.output
    layer.weight.copy_(torch.tensor([[1.0, -1.0]]).expand(len(gains), 1, 2))  # relu(x) - relu(-x) = x
    layer.bias.zero_()
    output.weight.copy_(torch.tensor(gains)[:, None, None] * torch.tensor([[-1.0], [1.0]]))
    output.bias.copy_(torch.tensor(offsets or [0.0] * len(gains))[:, None, None])
    policy.raw_std.fill_(0.0787)  # -5 + 2.5 (tanh(raw) + 1) = log(0.1)
    return policy


def true_returns(policy: GaussianPolicy, *, steps: int, noise: float = 0.05, seed: int = 9) -> Tensor:
    """Mean return [E] of the mean actions in the true point mass, from 200 starts in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(200, 1, generator=g) * 2.0 - 1.0
    x = x.expand(policy.spec.members, 200, 1)
    total = torch.zeros(policy.spec.members)
    with torch.no_grad():
        for _ in range(steps):
            action = policy.distribution(policy.normalize(x)).mean
            x = x + STRIDE * action + noise * torch.randn(200, 1, generator=g)
            total += reward(x[..., 0]).mean(dim=1)
    return total


def parameters_of(module: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same_bits(left: Any, right: Any) -> bool:
    """Whether two nested structures of tensors, arrays and plain values are equal to the bit."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_bits(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same_bits(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)
