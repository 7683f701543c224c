"""The paper's minibatches: dataset states, actions of an anchor policy, advantages of the critics."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unio4_lib.learning.critics import Critics
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.nets.policy import GaussianPolicy, copy_members
from unio4_lib.settings.model import ImproveConfig

ADVANTAGE_FLOOR = 1e-8


class Minibatch(NamedTuple):
    """Actions drawn from an anchor policy, with what they were worth."""

    observations: Tensor  # [E, B, D] normalized
    actions: Tensor  # [E, B, A] as sampled, unit scale, not clamped
    log_probs: Tensor  # [E, B] under the anchor
    advantages: Tensor  # [E, B] standardized for each member


def standardize(advantages: Tensor) -> Tensor:
    """Mean 0, std 1 over the batch of each member, [E, B]."""
    centered = advantages - advantages.mean(dim=1, keepdim=True)
    return centered / (centered.square().mean(dim=1, keepdim=True).sqrt() + ADVANTAGE_FLOOR)


class CriticAdvantages:
    """The paper's source: dataset states, actions of the anchor, A = min Q - V of the frozen critics."""

    def __init__(
        self, data: OfflineData, critics: Critics, policy: GaussianPolicy, config: ImproveConfig, *, seed: int
    ) -> None:
        self.data, self.critics, self.config = data, critics, config
        self.anchor = copy.deepcopy(policy).requires_grad_(False)
        self.generator = torch.Generator(data.observations.device).manual_seed(seed)
        self.drawn = 0

    @torch.no_grad()
    def next(self, candidate: GaussianPolicy) -> Minibatch:
        every = self.config.anchor_every
        if every is not None and self.drawn % every == 0:
            self.anchor.load_state_dict(candidate.state_dict())
        self.drawn += 1
        device = self.data.observations.device
        members, batch = candidate.spec.members, self.config.batch_size
        rows = torch.randint(len(self.data), (batch,), generator=self.generator, device=device)
        observations = self.data.observations[rows]
        gaussian = self.anchor.distribution(observations)
        noise = torch.randn(gaussian.mean.shape, generator=self.generator, device=device)
        actions = gaussian.sample(noise)
        shared = observations.expand(members, -1, -1)
        # V(s) is the same for all actions of a row, but the standardization runs over rows.
        advantages = self.critics.min_q(shared, actions) - self.critics.values(observations)
        return Minibatch(shared, actions, gaussian.log_prob(actions), standardize(advantages))

    def renew(self, members: Tensor, candidate: GaussianPolicy) -> None:
        """Members [E] (bool) were accepted as they are, or put back: ratios refer to them from now on."""
        copy_members(candidate, self.anchor, members)

    def state_dict(self) -> dict[str, Any]:
        return {
            "anchor": self.anchor.state_dict(),
            "generator": self.generator.get_state(),
            "drawn": self.drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.load_state_dict(state["anchor"])
        self.generator.set_state(state["generator"])
        self.drawn = state["drawn"]
