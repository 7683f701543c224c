"""What an off-policy method is to those who train it: something that learns from minibatches."""

from typing import Any, Protocol

import torch
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.nets.kinds import build_policy
from unio4_lib.nets.policy import Policy, PolicySpec


class Learner(Protocol):
    """One off-policy method; offline and online it learns alike."""

    policy: Policy  # scored, delivered, and what acts in the environment with its own noise

    def update(self, batch: Batch) -> Metrics:
        """One gradient step of every network."""
        ...

    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        """Figures that tell how training goes, on rows [B] of the data and the returns that followed."""
        ...

    def go_online(self) -> None:
        """What is loosened at the switch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make_policy(data: OfflineData, spec: PolicySpec, generator: torch.Generator) -> Policy:
    """A new policy in the scales of the data."""
    policy = build_policy(spec, generator=generator).to(data.observations.device)
    policy.set_scales(data.observation_mean, data.observation_std, data.action_low, data.action_high)
    return policy


@torch.no_grad()
def follow(targets: Any, networks: Any, rate: float) -> None:
    """Let slow copies come nearer to their networks by a share of the distance (Polyak)."""
    slow: list[Tensor] = list(targets.parameters())
    torch._foreach_lerp_(slow, list(networks.parameters()), rate)
