"""The kinds of policies beside the Gaussian one, and how a policy is made from its spec."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unio4_lib.errors import InputError
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
        mean, raw_std = self.net(observations).chunk(2, dim=-1)
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


KINDS: dict[Kind, Callable[..., Policy]] = {
    "gaussian": GaussianPolicy,
    "deterministic": DeterministicPolicy,
    "squashed": SquashedPolicy,
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
