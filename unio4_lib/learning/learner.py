"""What an off-policy method is to those who train it: something that learns from minibatches."""

from collections.abc import Hashable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.replay import Replay
from unio4_lib.learning.updates import Updates
from unio4_lib.nets.kinds import build_policy
from unio4_lib.nets.policy import Policy, PolicySpec

OTHER_STREAM = 1 << 32  # between the numbers of the first weights and those of training


class Learner(Protocol):
    """One off-policy method; offline and online it learns alike."""

    @property
    def policy(self) -> Policy:
        """What is scored and delivered."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """One gradient step of every network."""
        ...

    def phase(self) -> Hashable:
        """What the next update will be like: those of one phase do the same work, whatever the numbers."""
        ...

    def draws_from(self) -> list[torch.Generator]:
        """All generators that updates use."""
        ...

    def explore(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Unit actions [N, A] to collect new rows with, for normalized observations and noise [N, A]."""
        ...

    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        """Figures that tell how training goes, on rows [B] of the data and the returns that followed."""
        ...

    def go_online(self) -> None:
        """What is loosened at the switch."""
        ...

    def prepare(self, replay: Replay, env_steps: int) -> Metrics:
        """One piece of work on all rows, and what it says; nothing is said where none is left.

        It is asked for before every step in the environment from the end of the warm-up on, again and again
        until none is left. Between two pieces training can be stopped and taken up again.
        """
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BaseLearner:
    """What most learners have in common: they explore by the noise of their policy, loosen nothing, and
    prepare nothing.

    ``parts`` names the networks, ``numbers`` the plain values and ``streams`` the generators that are kept
    with the learner; ``draws`` is its own stream of noise.
    """

    parts: ClassVar[tuple[str, ...]] = ("policy",)
    numbers: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[tuple[str, ...]] = ("draws",)
    policy: Policy
    updates: Updates

    def __init__(self, data: OfflineData, generator: torch.Generator) -> None:
        device = data.observations.device
        self.draws = torch.Generator(device).manual_seed(generator.initial_seed() + OTHER_STREAM)

    def phase(self) -> Hashable:
        """All updates are alike."""
        return "update"

    def draws_from(self) -> list[torch.Generator]:
        return [getattr(self, name) for name in self.streams]

    def explore(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.policy.distribution(observations).sample(noise)[0]

    def go_online(self) -> None:
        """Nothing is loosened: online it learns as before, from more rows."""

    def prepare(self, replay: Replay, env_steps: int) -> Metrics:
        """No work but the updates."""
        return {}

    def normal(self, *shape: int) -> Tensor:
        """Standard normal noise."""
        return torch.randn(shape, generator=self.draws, device=self.draws.device)

    def state_dict(self) -> dict[str, Any]:
        kept = {name: getattr(self, name).state_dict() for name in (*self.parts, "updates")}
        streams = {name: getattr(self, name).get_state() for name in self.streams}
        return kept | {name: getattr(self, name) for name in self.numbers} | streams

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in (*self.parts, "updates"):
            getattr(self, name).load_state_dict(state[name])
        for name in self.numbers:
            setattr(self, name, state[name])
        for name in self.streams:
            getattr(self, name).set_state(state[name])


def make_policy(data: OfflineData, spec: PolicySpec, generator: torch.Generator) -> Policy:
    """A new policy in the scales of the data."""
    policy = build_policy(spec, generator=generator).to(data.observations.device)
    policy.set_scales(data.observation_mean, data.observation_std, data.action_low, data.action_high)
    return policy
