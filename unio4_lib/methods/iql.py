"""Implicit Q-learning (Kostrikov et al., ICLR 2022): no action is valued that the data does not have."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.critics import MIN_SCALE, Critics, q_losses, value_gaps, value_losses
from unio4_lib.learning.learner import BaseLearner, make_policy
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.updates import Group, Updates, half_cosine
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun, look_at_values
from unio4_lib.nets.policy import Distribution, PolicySpec
from unio4_lib.settings.model import CriticsConfig, Hidden, StageConfig


class ImplicitConfig(StageConfig):
    """A learner of implicit values."""

    expectile: float = Field(0.7, gt=0, lt=1, description="Expectile of V (paper: 0.7, AntMaze 0.9).")
    largest_weight: float = Field(100.0, gt=0, description="Cap of these weights (paper: 100).")
    polyak: float = Field(0.005, gt=0, le=1, description="Rate of the target network (paper: 0.005).")
    hidden: Hidden = Field((256, 256), description="Widths of all networks (paper: 256 x 2).")
    layer_norm: bool = Field(False, description="Layer normalization in Q and V (paper: none).")
    std: Literal["state", "shared"] = Field("shared", description="Std from the state or one per dimension.")
    learning_rate: float = Field(3e-4, gt=0, description="Adam step size of all networks (paper: 3e-4).")


class IqlConfig(ImplicitConfig):
    """The learner."""

    temperature: float = Field(
        3.0,
        ge=0,
        description="Factor of advantages in the weights of cloning (paper: 3, AntMaze 10, Adroit 0.5).",
    )


class IqlRun(OffPolicyRun):
    """IQL offline, then online on old and new rows."""

    title: ClassVar[str] = "IQL"

    method: Literal["iql"] = Field("iql", description="The offline-to-online method.")
    iql: IqlConfig = IqlConfig()


class ImplicitQ(BaseLearner):
    """Twin Q, V and a policy that clones by advantage; a subclass says how much advantages count."""

    parts: ClassVar[tuple[str, ...]] = ("policy", "critics")
    settings: ImplicitConfig

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, generator)
        own = config.own
        self.settings, self.discount = own, config.train.discount
        sizes = data.observation_dim, data.action_dim
        shape = CriticsConfig(q_hidden=own.hidden, v_hidden=own.hidden, layer_norm=own.layer_norm)
        self.critics = Critics(*sizes, shape, generator=generator).to(data.observations.device)
        self.critics.scale.copy_(data.returns.std().clamp(min=MIN_SCALE))
        self.critics.shift.copy_(data.returns.mean())
        self.policy = make_policy(data, self.shape(PolicySpec(1, *sizes, own.hidden, std=own.std)), generator)
        slow = [(self.critics.q_target, self.critics.q)]
        self.updates = Updates(self.groups(config.train.steps), slow, own.polyak)

    def shape(self, spec: PolicySpec) -> PolicySpec:
        """Of the policy, from that of a plain one."""
        return spec

    def groups(self, offline_updates: int) -> dict[str, Group]:
        """What each loss moves.

        A policy cloned by weights that keep changing swings from one evaluation to the next: offline its
        step falls to zero, online it is whole again.
        """
        rate = self.settings.learning_rate
        return {
            "value": Group([self.critics.v], rate),
            "q": Group([self.critics.q], rate),
            "policy": Group([self.policy], rate, half_cosine(offline_updates)),
        }

    def update(self, batch: Batch) -> Metrics:
        metrics = self.updates.step(self.losses(batch))
        self.updates.follow()
        return metrics

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of each row [B]: V's and Q's in standard deviations of the returns, and the policy's."""
        with torch.no_grad():
            following = self.critics.values(batch.next_observations)
        gaps = value_gaps(self.critics, batch)
        return {
            "value": value_losses(self.critics, gaps, self.settings.expectile),
            "q": q_losses(self.critics, batch, following, self.discount),
            "policy": self.policy_loss(batch, gaps.detach()),
        }

    def policy_loss(self, batch: Batch, advantages: Tensor) -> Tensor:
        """Of the policy on rows whose actions were better than expected by so much [B]."""
        raise NotImplementedError

    def cloning(self, policy: Distribution, actions: Tensor, exponents: Tensor) -> Tensor:
        """Losses [B] of a policy that clones actions [B, A], by the exponentials [B] of its exponents."""
        weights = torch.exp(exponents).clamp(max=self.settings.largest_weight)
        return -weights * policy.log_prob(actions)[0]

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        values = self.critics.values(batch.observations)
        advantages = self.critics.target_min_q(batch.observations, batch.actions) - values
        return look_at_values(values, returns, advantages)


class Iql(ImplicitQ):
    """Nothing ever asks Q for an action that no row has."""

    settings: IqlConfig

    def policy_loss(self, batch: Batch, advantages: Tensor) -> Tensor:
        """Cloning [B]: a row weighs by how much better it was than expected."""
        found = self.policy.distribution(batch.observations)
        return self.cloning(found, batch.actions, self.settings.temperature * advantages)


ROOM = OffPolicy(
    "iql",
    "implicit Q-learning: values of the data's own actions by expectiles, the policy cloned by advantage",
    IqlRun,
    Iql,
    __name__,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
