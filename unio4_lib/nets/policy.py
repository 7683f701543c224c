"""Policies: what all kinds have in common, and the Gaussian one of cloning, improvement and PPO.

The published code squashes the log standard deviation once more when it moves a policy online, which
changes the policy; one class for all phases makes that impossible.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unio4_lib.errors import InputError
from unio4_lib.nets.ensemble import Activation, EnsembleMLP, select_members

LOG_STD_MIN, LOG_STD_MAX = -5.0, 0.0  # the paper's bounds: std between 0.0067 and 1
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
LARGEST = 1e30  # number in a description that a policy can still reckon with

Kind = Literal["gaussian", "deterministic", "squashed", "family", "squashed_family", "expanded"]


class Distribution(Protocol):
    """Over unit actions, one for each member and row."""

    @property
    def mean(self) -> Tensor:
        """The action without noise [E, B, A]."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """The action [E, B, A] that standard normal noise makes."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density [E, B] of actions [B, A] or [E, B, A]."""
        ...


class Gaussian(NamedTuple):
    """A diagonal normal distribution over actions in the unit box (its samples may leave the box)."""

    mean: Tensor  # [E, B, A]
    log_std: Tensor  # [E, B, A]

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density [E, B] of actions [B, A] or [E, B, A], summed over action dimensions."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z.square() - self.log_std - HALF_LOG_2PI).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise; the noise is an argument so that two policies can share it."""
        return self.mean + self.log_std.exp() * noise

    def entropy(self) -> Tensor:
        """Entropy [E, B]."""
        return (self.log_std + 0.5 + HALF_LOG_2PI).sum(-1)


@dataclass(frozen=True)
class PolicySpec:
    """Everything needed to build a policy of the same shape again (plain JSON values)."""

    members: int
    observation_dim: int
    action_dim: int
    hidden: tuple[int, ...]
    activation: Activation = "relu"
    std: Literal["state", "shared"] = "state"
    std_scale: float = 1.0  # factor of every standard deviation
    kind: Kind = "gaussian"  # what old files are, which do not say it
    coefficients: tuple[float, float] = (0.0, 0.0)  # from which a family has a policy for each one
    layer_norm: bool = False  # in the values by which an expanded policy chooses

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PolicySpec":
        tuples: dict[str, Any] = {
            name: tuple(values[name]) for name in ("hidden", "coefficients") if name in values
        }
        spec = cls(**{**values, **tuples})
        sizes = (spec.members, spec.observation_dim, spec.action_dim, *spec.hidden)
        if not all(type(size) is int and size >= 1 for size in sizes):
            raise ValueError(f"members and sizes are {sizes}; expected whole numbers of at least 1")
        if isinstance(spec.std_scale, bool) or not 0 < spec.std_scale < LARGEST:
            raise ValueError(
                f"std_scale is {str(spec.std_scale)[:60]}; expected a number above 0 and below {LARGEST:g}"
            )
        ends = spec.coefficients
        numbers = all(type(end) in (int, float) and abs(end) < LARGEST for end in ends)
        if len(ends) != 2 or not numbers or ends[0] > ends[1]:
            raise ValueError(
                f"coefficients are {str(ends)[:60]}; expected two numbers, the smaller one first"
            )
        return spec

    def weights(self) -> int:
        """Numbers in the layers of its one or its largest network, biases aside."""
        widths = (self.observation_dim, *self.hidden, self.action_dim)
        return self.members * sum(a * b for a, b in pairwise(widths))


def to_unit(actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Actions [..., A] of the environment in units in which its bounds are -1 and 1."""
    return 2.0 * (actions - low) / (high - low) - 1.0


class Policy(nn.Module):
    """E policies that carry their own observation statistics and action bounds.

    ``distribution`` speaks normalized observations and unit actions, for training; ``act`` speaks the
    units of the environment, for use.
    """

    observation_mean: Tensor
    observation_std: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(
        self, spec: PolicySpec, *, output_gain: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.net = EnsembleMLP(
            spec.members,
            self.numbers_seen(spec),
            spec.action_dim * self.numbers_per_action(spec),
            spec.hidden,
            activation=spec.activation,
            init="orthogonal",
            output_gain=output_gain,
            generator=generator,
        )
        self.register_buffer("observation_mean", torch.zeros(spec.observation_dim))
        self.register_buffer("observation_std", torch.ones(spec.observation_dim))
        self.register_buffer("action_low", -torch.ones(spec.action_dim))
        self.register_buffer("action_high", torch.ones(spec.action_dim))

    @staticmethod
    def numbers_seen(spec: PolicySpec) -> int:
        """Inputs of the network."""
        return spec.observation_dim

    @staticmethod
    def numbers_per_action(spec: PolicySpec) -> int:
        """Outputs of the network for each action dimension."""
        return 2 if spec.std == "state" else 1

    def distribution(self, observations: Tensor) -> Distribution:
        """Distribution over unit actions for normalized observations [B, D] or [E, B, D]."""
        raise NotImplementedError

    def set_scales(self, mean: Tensor, std: Tensor, low: Tensor, high: Tensor) -> None:
        """Fix the observation statistics [D] and the action bounds [A]."""
        self.observation_mean.copy_(mean)
        self.observation_std.copy_(std)
        self.action_low.copy_(low)
        self.action_high.copy_(high)

    def normalize(self, observations: Tensor) -> Tensor:
        """Observations of the environment [..., D] in the units that the network knows."""
        return (observations - self.observation_mean) / self.observation_std

    def to_environment(self, actions: Tensor) -> Tensor:
        """Unit actions [..., A] clamped to the box and scaled to the environment's bounds."""
        half = 0.5 * (self.action_high - self.action_low)
        return self.action_low + (actions.clamp(-1.0, 1.0) + 1.0) * half

    @torch.no_grad()
    def act(
        self, observations: NDArray[Any], noise: NDArray[Any] | None = None, member: int = 0
    ) -> NDArray[np.float64]:
        """Actions [B, A] of one member, environment units in and out; deterministic without noise."""
        known = self._checked(observations)
        inputs = torch.as_tensor(known, device=self.observation_mean.device)
        distribution = self.distribution(self.normalize(inputs))
        actions = distribution.mean
        if noise is not None:
            draws = torch.as_tensor(np.asarray(noise, np.float32), device=inputs.device)
            actions = distribution.sample(draws)
        return self.to_environment(actions[member]).double().cpu().numpy()

    def _checked(self, observations: NDArray[Any]) -> NDArray[np.float32]:
        """A batch of what the network knows: it would answer NaN with NaN, and infinity with an action."""
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            found = np.array(observations, np.float32)
        if found.ndim not in (2, 3) or found.shape[-1] != self.spec.observation_dim:
            raise InputError(
                f"observations of shape {found.shape}; expected (number, {self.spec.observation_dim})"
            )
        if not np.isfinite(found).all():
            raise InputError("observations are not finite; expected numbers that float32 can hold")
        return found

    def members(self, indices: Sequence[int]) -> Self:
        """A new policy with copies of the given members alone."""
        chosen = type(self)(replace(self.spec, members=len(indices))).to(self.observation_mean.device)
        chosen.load_state_dict(select_members(self, indices))
        return chosen

    def narrowed(self, factor: float) -> Self:
        """A new policy with the same mean and a std that is ``factor`` times as large in every state."""
        spec = replace(self.spec, std_scale=self.spec.std_scale * factor)
        narrow = type(self)(spec).to(self.observation_mean.device)
        narrow.load_state_dict(self.state_dict())
        return narrow


class GaussianPolicy(Policy):
    """E policies with a normal distribution around a mean in the unit box.

    mean = tanh(.); log std = -5 + 2.5 (tanh(.) + 1), either from the state (the paper's choice) or one free
    parameter for each action dimension, plus log std_scale.
    """

    def __init__(self, spec: PolicySpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, output_gain=0.01 if spec.std == "shared" else 1.0, generator=generator)
        if spec.std == "shared":
            self.raw_std = nn.Parameter(torch.full((spec.members, 1, spec.action_dim), 0.7))

    def distribution(self, observations: Tensor) -> Gaussian:
        return self.around(self.net(observations))

    def around(self, out: Tensor) -> Gaussian:
        """The distribution that outputs of the network [E, B, ...] mean."""
        if self.spec.std == "state":
            mean, raw_std = out.chunk(2, dim=-1)
        else:
            mean, raw_std = out, self.raw_std.expand_as(out)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw_std) + 1.0)
        return Gaussian(torch.tanh(mean), log_std + math.log(self.spec.std_scale))


@torch.no_grad()
def copy_members(source: GaussianPolicy, target: GaussianPolicy, members: Tensor) -> None:
    """Overwrite the given members [E] (bool) of the target with those of the source."""
    for new, old in zip(source.parameters(), target.parameters(), strict=True):
        mask = members.to(old.device).view(-1, *([1] * (old.dim() - 1)))
        old.copy_(torch.where(mask, new, old))


@torch.no_grad()
def follow(average: GaussianPolicy, newest: GaussianPolicy, share: float) -> None:
    """Move a running average of weights towards the newest ones by a share of the way."""
    for mean, new in zip(average.parameters(), newest.parameters(), strict=True):
        mean.lerp_(new, share)


@torch.no_grad()
def stack_policies(policies: list[GaussianPolicy]) -> GaussianPolicy:
    """One policy with the members of all, in order; they share scales and shapes."""
    first = policies[0]
    total = sum(policy.spec.members for policy in policies)
    spec = replace(first.spec, members=total)
    stacked = GaussianPolicy(spec).to(first.observation_mean.device)
    state = first.state_dict()
    for name, _ in first.named_parameters():
        state[name] = torch.cat([policy.state_dict()[name] for policy in policies])
    stacked.load_state_dict(state)
    return stacked.requires_grad_(False)
