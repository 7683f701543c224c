"""TD3+BC (Fujimoto & Gu, NeurIPS 2021): the best action by Q, held near the data's own."""

import copy
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


class Td3BcConfig(StageConfig):
    """The learner."""

    alpha: float = Field(
        2.5, ge=0, description="Weight of Q, in units of its own size, against imitation (paper: 2.5)."
    )
    imitation_online: float = Field(
        0.5, ge=0, le=1, description="Share of the weight of imitation that is left online; 0 is plain TD3."
    )
    target_noise: float = Field(0.2, ge=0, description="Std of the noise on actions of targets (paper: 0.2).")
    noise_bound: float = Field(0.5, ge=0, description="Bound of that noise (paper: 0.5).")
    policy_every: int = Field(2, ge=1, description="Updates of Q for each one of the policy (paper: 2).")
    exploration: float = Field(0.1, gt=0, le=1, description="Std of actions when it explores (paper: 0.1).")
    polyak: float = Field(0.005, gt=0, le=1, description="Rate of the target networks (paper: 0.005).")
    hidden: Hidden = Field((256, 256), description="Widths of all networks (paper: 256 x 2).")
    layer_norm: bool = Field(True, description="Layer normalization in Q (paper: none, ReBRAC: yes).")
    learning_rate: float = Field(3e-4, gt=0, description="Adam step size of all networks (paper: 3e-4).")


class Td3BcRun(OffPolicyRun):
    """TD3+BC offline, then online with less imitation."""

    title: ClassVar[str] = "TD3+BC"

    method: Literal["td3_bc"] = Field("td3_bc", description="The offline-to-online method.")
    td3_bc: Td3BcConfig = Td3BcConfig()


class Td3Bc(BaseLearner):
    """Twin Q and a policy that is only a mean, each with a slow copy."""

    parts = ("policy", "slow_policy", "q")

    def __init__(self, data: OfflineData, config: Td3BcRun, generator: torch.Generator) -> None:
        super().__init__(data, generator)
        self.settings, self.discount = config.td3_bc, config.train.discount
        own, device = self.settings, data.observations.device
        self.q = QEnsemble(data, 2, own.hidden, layer_norm=own.layer_norm, generator=generator).to(device)
        sizes = data.observation_dim, data.action_dim
        spec = PolicySpec(1, *sizes, own.hidden, std_scale=own.exploration, kind="deterministic")
        self.policy = make_policy(data, spec, generator)
        self.slow_policy = copy.deepcopy(self.policy).requires_grad_(False)
        rate = own.learning_rate
        groups = {"q": Group([self.q.q], rate), "policy": Group([self.policy], rate)}
        self.updates = Updates(groups, [(self.q.slow, self.q.q), (self.slow_policy, self.policy)], own.polyak)
        self.imitation = 1.0

    def update(self, batch: Batch) -> Metrics:
        metrics = self.updates.step({"q": self.q.errors(batch, self.targets(batch)).sum(dim=0)})
        if self.updates.groups["q"].taken % self.settings.policy_every == 0:
            metrics |= self.updates.step({"policy": self.policy_loss(batch)})
            self.updates.follow()
        return metrics

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """What Q should be [B]: of the slow copies the smaller one, around the slow policy's action."""
        actions = self.smoothed(batch.next_observations)
        following = self.q.slow_values(batch.next_observations, actions).min(dim=0).values
        return batch.rewards + self.discount * (1.0 - batch.terminals) * following

    def smoothed(self, observations: Tensor) -> Tensor:
        """The slow policy's actions [B, A] with bounded noise."""
        own, actions = self.settings, self.slow_policy.distribution(observations).mean[0]
        noise = (own.target_noise * self.normal(*actions.shape)).clamp(-own.noise_bound, own.noise_bound)
        return (actions + noise).clamp(-1.0, 1.0)

    def policy_loss(self, batch: Batch) -> Tensor:
        """Minus Q in units of its own size, plus the distance from the data's action [B]."""
        actions = self.policy.distribution(batch.observations).mean[0]
        values = self.q.values(batch.observations, actions)[0]
        size = values.detach().abs().mean().clamp(min=1e-8)
        distance = (actions - batch.actions).square().mean(dim=-1)
        return self.imitation * distance - self.settings.alpha * values / size

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        actions = self.policy.distribution(batch.observations).mean[0]
        values = self.q.values(batch.observations, actions).min(dim=0).values
        own = self.q.values(batch.observations, batch.actions).min(dim=0).values
        distance = (actions - batch.actions).square().mean()
        return {**look_at_values(values, returns, own - values), "learner/distance": distance}

    def go_online(self) -> None:
        """Imitation counts less from now on."""
        self.imitation = self.settings.imitation_online


ROOM = OffPolicy(
    "td3_bc",
    "TD3+BC: the best action by Q, held near the data's own",
    Td3BcRun,
    Td3Bc,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
