"""TD3 (Fujimoto et al., ICML 2018): what methods with a deterministic policy share, and by itself."""

import copy
from collections.abc import Hashable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.learner import BaseLearner, make_policy
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.q_ensemble import QEnsemble
from unio4_lib.learning.updates import Group, Updates
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun, look_at_values
from unio4_lib.nets.policy import PolicySpec
from unio4_lib.settings.model import Hidden, StageConfig


class Td3Config(StageConfig):
    """The learner."""

    target_noise: float = Field(0.2, ge=0, description="Std of the noise on actions of targets (paper: 0.2).")
    noise_bound: float = Field(0.5, ge=0, description="Bound of that noise (paper: 0.5).")
    policy_every: int = Field(2, ge=1, description="Updates of Q for each one of the policy (paper: 2).")
    exploration: float = Field(0.1, gt=0, le=1, description="Std of actions when it explores (paper: 0.1).")
    polyak: float = Field(0.005, gt=0, le=1, description="Rate of the target networks (paper: 0.005).")
    hidden: Hidden = Field((256, 256), description="Widths of all networks (paper: 256 x 2).")
    layer_norm: bool = Field(True, description="Layer normalization in Q (paper: none, ReBRAC: yes).")
    learning_rate: float = Field(3e-4, gt=0, description="Adam step size of all networks (paper: 3e-4).")


class Td3Run(OffPolicyRun):
    """TD3 by itself: what fine-tuning comes to where nothing of the data holds the policy."""

    title: ClassVar[str] = "TD3"

    method: Literal["td3"] = Field("td3", description="The offline-to-online method.")
    td3: Td3Config = Td3Config()


class Td3(BaseLearner):
    """Twin Q and a policy that is only a mean, each with a slow copy; a subclass says what holds it back."""

    parts: ClassVar[tuple[str, ...]] = ("policy", "slow_policy", "q")
    settings: Td3Config

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, generator)
        own = config.own
        self.settings, self.discount = own, config.train.discount
        self.q = QEnsemble(data, 2, own.hidden, layer_norm=own.layer_norm, generator=generator)
        self.q.to(data.observations.device)
        sizes = data.observation_dim, data.action_dim
        spec = PolicySpec(1, *sizes, own.hidden, std_scale=own.exploration, kind="deterministic")
        self.policy = make_policy(data, spec, generator)
        self.slow_policy = copy.deepcopy(self.policy).requires_grad_(False)
        groups = {
            "q": Group([self.q.q], own.learning_rate),
            "policy": Group([self.policy], own.learning_rate),
        }
        self.updates = Updates(groups, [(self.q.slow, self.q.q), (self.slow_policy, self.policy)], own.polyak)

    def update(self, batch: Batch) -> Metrics:
        errors = self.q.errors(batch, self.targets(batch)).sum(dim=0)
        metrics = self.updates.step({"q": errors}, self.loss_weights(batch))
        if self.updates.groups["q"].taken % self.settings.policy_every == 0:
            metrics |= self.updates.step({"policy": self.policy_loss(batch)})
            self.updates.follow()
        return metrics

    def phase(self) -> Hashable:
        """Whether the policy moves, too."""
        return (self.updates.groups["q"].taken + 1) % self.settings.policy_every == 0

    def loss_weights(self, batch: Batch) -> dict[str, Tensor]:
        """What rows [B] count in a loss, where not all count alike."""
        return {}

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """What Q should be [B]: of the slow copies the smaller one, around the slow policy's action."""
        actions = self.smoothed(batch.next_observations)
        following = self.q.slow_values(batch.next_observations, actions).min(dim=0).values
        following = following - self.value_penalty(batch, actions)
        return batch.rewards + self.discount * (1.0 - batch.terminals) * following

    def smoothed(self, observations: Tensor, draws: torch.Generator | None = None) -> Tensor:
        """The slow policy's actions [B, A] with bounded noise, by default from its own stream."""
        own, actions = self.settings, self.slow_policy.distribution(observations).mean[0]
        noise = torch.randn(actions.shape, generator=draws or self.draws, device=actions.device)
        noise = (own.target_noise * noise).clamp(-own.noise_bound, own.noise_bound)
        return (actions + noise).clamp(-1.0, 1.0)

    def policy_loss(self, batch: Batch) -> Tensor:
        """What holds the policy back, minus Q in units of its own size [B]."""
        actions = self.policy.distribution(batch.observations).mean[0]
        values = self.followed_values(batch.observations, actions)
        size = values.detach().abs().mean().clamp(min=1e-8)
        return self.policy_penalty(batch, actions) - self.value_weight() * values / size

    def followed_values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What the policy seeks [B]."""
        return self.policy_value(self.q.values(observations, actions))

    def policy_value(self, values: Tensor) -> Tensor:
        """Of both Q [2, B] the one that the policy follows [B]."""
        return values[0]

    def value_weight(self) -> float:
        return 1.0

    def policy_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        """On the policy's actions [B, A] in these rows."""
        return torch.zeros_like(batch.rewards)

    def value_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        """Off the values of actions [B, A] behind these rows."""
        return torch.zeros_like(batch.rewards)

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        actions = self.policy.distribution(batch.observations).mean[0]
        values = self.q.values(batch.observations, actions).min(dim=0).values
        own = self.q.values(batch.observations, batch.actions).min(dim=0).values
        distance = (actions - batch.actions).square().mean()
        return {**look_at_values(values, returns, own - values), "learner/distance": distance}


ROOM = OffPolicy(
    "td3",
    "TD3: the best action by Q, with nothing that holds it near the data; a learner for online alone",
    Td3Run,
    Td3,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
