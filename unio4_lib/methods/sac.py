"""SAC (Haarnoja et al., 2018): what methods with a squashed policy and an entropy of their own share."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unio4_lib.learning.learner import BaseLearner, make_policy
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.q_ensemble import QEnsemble
from unio4_lib.learning.updates import Group, Updates
from unio4_lib.methods.offpolicy import OffPolicyRun, look_at_values
from unio4_lib.nets.kinds import Squashed, SquashedPolicy
from unio4_lib.nets.policy import PolicySpec
from unio4_lib.settings.model import Hidden, StageConfig


class SacConfig(StageConfig):
    """The learner."""

    critics: int = Field(2, ge=2, description="Action values, of which the smallest counts (SAC: 2).")
    entropy_backup: bool = Field(True, description="Whether the value of what follows has an entropy bonus.")
    temperature: float = Field(1.0, gt=0, description="Weight of the entropy at the start (papers: 1).")
    entropy_per_action: float = Field(
        -1.0, description="Entropy for each action dimension that the temperature is led to (papers: -1)."
    )
    polyak: float = Field(0.005, gt=0, le=1, description="Rate of the target networks (papers: 0.005).")
    hidden: Hidden = Field((256, 256), description="Widths of all networks (papers: 256 x 3).")
    layer_norm: bool = Field(False, description="Layer normalization in Q (papers: none).")
    learning_rate: float = Field(3e-4, gt=0, description="Adam step size of Q (papers: 3e-4).")
    policy_learning_rate: float = Field(
        3e-4, gt=0, description="Adam step size of policy and temperature (papers: 3e-5 to 3e-4)."
    )


class Temperature(nn.Module):
    """Weight of the entropy, positive."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(float(start)).log())

    def value(self) -> Tensor:
        return self.log.detach().exp()


class Sac(BaseLearner):
    """N action values with slow copies, a squashed policy, a temperature; a subclass says what is added."""

    parts: ClassVar[tuple[str, ...]] = ("policy", "q", "temperature")
    settings: SacConfig
    policy: SquashedPolicy

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, generator)
        own, device = config.own, data.observations.device
        self.settings, self.discount = own, config.train.discount
        self.q = QEnsemble(data, own.critics, own.hidden, layer_norm=own.layer_norm, generator=generator)
        self.q.to(device)
        spec = PolicySpec(1, data.observation_dim, data.action_dim, own.hidden, kind="squashed")
        policy = make_policy(data, self.shape(spec), generator)
        assert isinstance(policy, SquashedPolicy)
        self.policy, self.temperature = policy, Temperature(own.temperature).to(device)
        self.wanted_entropy = own.entropy_per_action * data.action_dim
        groups = {
            "q": Group([self.q.q], own.learning_rate),
            "policy": Group([self.policy], own.policy_learning_rate),
            "temperature": Group([self.temperature], own.policy_learning_rate),
        }
        self.updates = Updates(groups, [(self.q.slow, self.q.q)], own.polyak)

    def shape(self, spec: PolicySpec) -> PolicySpec:
        """Of the policy, from that of a plain one."""
        return spec

    def update(self, batch: Batch) -> Metrics:
        losses, log_probs = self.losses(batch)
        metrics = self.updates.step(losses)
        self.updates.follow()
        entropy = {"learner/entropy": -log_probs.detach().mean()}
        return metrics | entropy | {"learner/temperature": self.temperature.value()}

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Of each row [B], and the log densities [B] of the actions that the policy learns from."""
        actions, log_probs = self.sample(batch.observations)
        losses = {
            "q": self.q_loss(batch),
            "policy": self.policy_loss(batch, actions, log_probs),
            "temperature": self.temperature_loss(log_probs),
        }
        return losses, log_probs

    def temperature_loss(self, log_probs: Tensor) -> Tensor:
        return -self.temperature.log * (log_probs.detach() + self.wanted_entropy)

    def sample(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """An action of the policy for each observation [B, A], and its log density [B]."""
        actions, log_probs = self.samples(observations, 1)
        return actions[:, 0], log_probs[:, 0]

    def acting(self, observations: Tensor) -> Squashed:
        """The policy in each observation [1, B, A]."""
        return self.policy.distribution(observations)

    def samples(self, observations: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Several actions for each observation [B, count, A], and their log densities [B, count]."""
        return self.draw(self.acting(observations), count)

    def draw(self, found: Squashed, count: int) -> tuple[Tensor, Tensor]:
        """Several actions [B, count, A] of distributions [1, B, A], and their log densities [B, count]."""
        each = Squashed(found.raw_mean[0, :, None], found.log_std[0, :, None])
        rows, dim = found.raw_mean.shape[1:]
        return each.sample_with_log_prob(self.normal(rows, count, dim))

    def q_loss(self, batch: Batch) -> Tensor:
        """Of all Q together [B], in variances of the returns.

        What a subclass adds is divided by that variance, too, so that its weight is that of the paper.
        """
        return self.q.errors(batch, self.targets(batch)).sum(dim=0)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """What Q should be [B]."""
        return batch.rewards + self.discount * (1.0 - batch.terminals) * self.following(batch)

    def following(self, batch: Batch) -> Tensor:
        """Value [B] of what follows: the smallest slow one, with a bonus for entropy."""
        actions, log_probs = self.sample(batch.next_observations)
        values = self.target_value(self.q.slow_values(batch.next_observations, actions))
        return values - self.temperature.value() * log_probs if self.settings.entropy_backup else values

    def policy_loss(self, batch: Batch, actions: Tensor, log_probs: Tensor) -> Tensor:
        """Minus what Q promises, and the entropy [B]."""
        values = self.policy_value(self.q.values(batch.observations, actions))
        return self.temperature.value() * log_probs - values

    def target_value(self, values: Tensor) -> Tensor:
        """Of all slow Q [N, B] what targets hope for [B]."""
        return values.min(dim=0).values

    def policy_value(self, values: Tensor) -> Tensor:
        """Of all Q [N, B] what the policy follows [B]."""
        return values.min(dim=0).values

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        actions = self.policy.distribution(batch.observations).mean[0]
        found = self.q.values(batch.observations, actions)
        own = self.q.values(batch.observations, batch.actions).min(dim=0).values
        values = found.min(dim=0).values
        distance = (actions - batch.actions).square().mean()
        spread = {"learner/distance": distance, "learner/disagreement": found.std(dim=0).mean()}
        return {**look_at_values(values, returns, own - values), **spread}
