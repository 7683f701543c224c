"""The kinds of policies beside the Gaussian one, and how a policy is made from its spec."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from unio4_lib.errors import InputError
from unio4_lib.nets.ensemble import EnsembleMLP, select_members
from unio4_lib.nets.policy import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Gaussian,
    GaussianPolicy,
    Kind,
    Policy,
    PolicySpec,
)

RAW_LOG_STD_MIN, RAW_LOG_STD_MAX = -5.0, 2.0  # before the squashing: e^2 is as good as uniform
BALANCE_LOG_STD_MIN, BALANCE_LOG_STD_MAX = -10.0, 2.0
ENCODED = 3  # waves that tell a coefficient, each by its sine and its cosine
LARGEST_ACTION = 1.0 - 1e-5  # of which a density is asked for; at 1 there is none


class Squashed(NamedTuple):
    """A diagonal normal distribution that tanh brings into the unit box (SAC's)."""

    raw_mean: Tensor  # [E, B, A]
    log_std: Tensor  # [E, B, A]

    @property
    def mean(self) -> Tensor:
        """Where the noise is zero: the median, which is what is meant by the action without noise."""
        return torch.tanh(self.raw_mean)

    def sample(self, noise: Tensor) -> Tensor:
        return torch.tanh(self.raw_mean + self.log_std.exp() * noise)

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [E, B, A] and their log density [E, B], exact also where tanh has become 1."""
        raw = self.raw_mean + self.log_std.exp() * noise
        return torch.tanh(raw), self._log_prob(raw)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self._log_prob(torch.atanh(actions.clamp(-LARGEST_ACTION, LARGEST_ACTION)))

    def _log_prob(self, raw: Tensor) -> Tensor:
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which does not cancel far out.
        shrinking = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
        return Gaussian(self.raw_mean, self.log_std).log_prob(raw) - shrinking.sum(-1)


class SquashedPolicy(Policy):
    """E policies whose noise goes through tanh with the mean; the std is the state's.

    log std = -5 + 3.5 (tanh(.) + 1), plus log std_scale.
    """

    def __init__(self, spec: PolicySpec, *, generator: torch.Generator | None = None) -> None:
        if spec.std != "state":
            raise ValueError(f"std of a squashed policy is {spec.std}; expected state")
        super().__init__(spec, output_gain=0.01, generator=generator)

    def distribution(self, observations: Tensor) -> Squashed:
        return self.around(self.net(observations))

    def around(self, out: Tensor) -> Squashed:
        """The distribution that outputs of the network [E, B, 2A] mean."""
        mean, raw_std = out.chunk(2, dim=-1)
        middle, half = 0.5 * (RAW_LOG_STD_MAX + RAW_LOG_STD_MIN), 0.5 * (RAW_LOG_STD_MAX - RAW_LOG_STD_MIN)
        log_std = middle + half * torch.tanh(raw_std)
        return Squashed(mean, log_std + math.log(self.spec.std_scale))


class DeterministicPolicy(Policy):
    """E policies that only have a mean, tanh(.); those who explore add noise of std std_scale to it."""

    def __init__(self, spec: PolicySpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, generator=generator)

    @staticmethod
    def numbers_per_action(spec: PolicySpec) -> int:
        return 1

    def distribution(self, observations: Tensor) -> Gaussian:
        mean = torch.tanh(self.net(observations))
        return Gaussian(mean, mean.new_full((), math.log(self.spec.std_scale)).expand_as(mean))


def encode(coefficients: Tensor) -> Tensor:
    """Sines and cosines [..., 6] of coefficients [...], in ever longer waves."""
    powers = torch.arange(ENCODED, device=coefficients.device) / ENCODED
    angles = coefficients[..., None] / 10_000.0**powers
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class Balance(nn.Module):
    """Which place between the ends of a range, -1 and 1, suits a state."""

    def __init__(self, spec: PolicySpec, generator: torch.Generator | None) -> None:
        super().__init__()
        self.net = EnsembleMLP(
            spec.members,
            spec.observation_dim,
            1,
            spec.hidden,
            activation=spec.activation,
            init="orthogonal",
            output_gain=0.01,
            generator=generator,
        )
        self.log_std = nn.Parameter(torch.zeros(spec.members, 1, 1))

    def forward(self, observations: Tensor) -> Squashed:
        means = self.net(observations)
        return Squashed(means, self.log_std.clamp(BALANCE_LOG_STD_MIN, BALANCE_LOG_STD_MAX).expand_as(means))


class Family(Policy):
    """E families: a policy for each coefficient of a range, and a balance that picks one by state.

    Where the range is one point there is nothing to tell: the family is a plain policy.
    """

    def __init__(self, spec: PolicySpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, generator=generator)
        self.balance = Balance(spec, generator)

    @staticmethod
    def numbers_seen(spec: PolicySpec) -> int:
        low, high = spec.coefficients
        return spec.observation_dim + (2 * ENCODED if low < high else 0)

    def coefficients(self, places: Tensor) -> Tensor:
        """Coefficients [...] of places [...] between -1 and 1."""
        low, high = self.spec.coefficients
        return low + 0.5 * (places + 1.0) * (high - low)

    def told(self, observations: Tensor, coefficients: Tensor) -> Tensor:
        """What the network gives [E, B, ...] where it is told coefficients [B] or [E, B]."""
        low, high = self.spec.coefficients
        if low == high:
            return self.net(observations)
        rows = observations.expand(*coefficients.shape, observations.shape[-1])
        return self.net(torch.cat([rows, encode(coefficients)], dim=-1))

    def best(self, observations: Tensor) -> Tensor:
        """The coefficients [E, B] that the balance picks."""
        return self.coefficients(self.balance(observations).mean[..., 0])


class FamilyPolicy(Family, GaussianPolicy):
    """Families of Gaussian policies."""

    def member(self, observations: Tensor, coefficients: Tensor) -> Gaussian:
        """The policies [E, B, A] of coefficients [B] or [E, B] in observations [B, D]."""
        return self.around(self.told(observations, coefficients))

    def distribution(self, observations: Tensor) -> Gaussian:
        return self.member(observations, self.best(observations))


class SquashedFamilyPolicy(Family, SquashedPolicy):
    """Families of squashed policies."""

    def member(self, observations: Tensor, coefficients: Tensor) -> Squashed:
        """The policies [E, B, A] of coefficients [B] or [E, B] in observations [B, D]."""
        return self.around(self.told(observations, coefficients))

    def distribution(self, observations: Tensor) -> Squashed:
        return self.member(observations, self.best(observations))


class Choice(NamedTuple):
    """Of an old policy's action and a new one's the better."""

    old: Tensor  # [E, B, A]
    new: Gaussian
    better: Callable[[Tensor, Tensor], Tensor]  # of two actions of each row

    @property
    def mean(self) -> Tensor:
        return self.better(self.old, self.new.mean)

    def sample(self, noise: Tensor) -> Tensor:
        return self.better(self.old, self.new.sample(noise))

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of the new policy, which learns; the old one's action has no density."""
        return self.new.log_prob(actions)


class ExpandedPolicy(GaussianPolicy):
    """E Gaussian policies, each beside an older one whose mean it takes where twin values prefer that.

    Before it is expanded there is nothing to choose: it is a plain policy.
    """

    expanded: Tensor

    def __init__(self, spec: PolicySpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, generator=generator)
        self.old = GaussianPolicy(replace(spec, kind="gaussian"), generator=generator)
        inputs = spec.observation_dim + spec.action_dim
        self.values = EnsembleMLP(
            2,
            inputs,
            1,
            spec.hidden,
            activation=spec.activation,
            layer_norm=spec.layer_norm,
            generator=generator,
        )
        self.register_buffer("expanded", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def expand(self, new: GaussianPolicy) -> None:
        """What the policy was becomes the old one, beside a new one."""
        own, other = dict(self.named_parameters()), dict(new.named_parameters())
        for name, old in self.old.named_parameters():
            old.copy_(own[name])
            own[name].copy_(other[name])
        self.expanded.fill_(True)

    def distribution(self, observations: Tensor) -> Choice:  # type: ignore[override]
        def better(old: Tensor, new: Tensor) -> Tensor:
            chosen = self.worth(observations, new) >= self.worth(observations, old)
            alone = torch.logical_not(self.expanded)
            return torch.where(torch.logical_or(chosen, alone)[..., None], new, old)

        return Choice(self.old.distribution(observations).mean, self.new(observations), better)

    def new(self, observations: Tensor) -> Gaussian:
        """The policy that learns."""
        return super().distribution(observations)

    def worth(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The smaller value [E, B] of actions [E, B, A], in a unit of its own."""
        rows = observations.expand(*actions.shape[:-1], observations.shape[-1])
        inputs = torch.cat([rows, actions.clamp(-1.0, 1.0)], dim=-1)
        return self.values(inputs.flatten(0, 1))[..., 0].min(dim=0).values.view(actions.shape[:-1])

    def members(self, indices: Sequence[int]) -> Self:
        """As of any policy; the values are those of all."""
        chosen = type(self)(replace(self.spec, members=len(indices))).to(self.observation_mean.device)
        shared = {name: part for name, part in self.state_dict().items() if name.startswith("values.")}
        chosen.load_state_dict(select_members(self, indices) | shared)
        return chosen


KINDS: dict[Kind, Callable[..., Policy]] = {
    "gaussian": GaussianPolicy,
    "deterministic": DeterministicPolicy,
    "squashed": SquashedPolicy,
    "family": FamilyPolicy,
    "squashed_family": SquashedFamilyPolicy,
    "expanded": ExpandedPolicy,
}


def build_policy(spec: PolicySpec, *, generator: torch.Generator | None = None) -> Policy:
    """A new policy of the kind that its spec says."""
    if spec.kind not in KINDS:
        raise InputError(f"policy of kind {spec.kind}; expected one of {', '.join(KINDS)}")
    return KINDS[spec.kind](spec, generator=generator)


@torch.no_grad()
def as_gaussian(policy: Policy, spec: PolicySpec, log_std: Tensor) -> GaussianPolicy:
    """A Gaussian policy of this shape: the mean action of ``policy``, the log std [A] in every state.

    All kinds have tanh of the first outputs of one network as their mean action: weights are only moved.
    """
    if type(policy) not in (GaussianPolicy, DeterministicPolicy, SquashedPolicy):
        raise InputError(f"policy of kind {policy.spec.kind}: its mean action is not that of one network")
    wanted = replace(spec, members=policy.spec.members, std_scale=1.0, kind="gaussian")
    if (policy.spec.hidden, policy.spec.activation) != (spec.hidden, spec.activation):
        raise InputError(
            f"policy of widths {list(policy.spec.hidden)} with {policy.spec.activation}; expected "
            f"{list(spec.hidden)} with {spec.activation}"
        )
    gaussian, width = GaussianPolicy(wanted).to(policy.observation_mean.device), spec.action_dim
    raw_std = torch.atanh(2.0 * (log_std - LOG_STD_MIN) / (LOG_STD_MAX - LOG_STD_MIN) - 1.0)
    own = policy.state_dict()
    state = {name: own.get(name, tensor) for name, tensor in gaussian.state_dict().items()}
    for name in ("net.output.weight", "net.output.bias"):
        state[name] = state[name][..., :width]
    if spec.std == "shared":
        state["raw_std"] = raw_std.expand_as(gaussian.raw_std).clone()
    else:
        zeros = torch.zeros_like(state["net.output.weight"])
        state["net.output.weight"] = torch.cat([state["net.output.weight"], zeros], dim=-1)
        bias = state["net.output.bias"]
        state["net.output.bias"] = torch.cat([bias, raw_std.expand_as(bias)], dim=-1)
    gaussian.load_state_dict(state)
    return gaussian.requires_grad_(False)
