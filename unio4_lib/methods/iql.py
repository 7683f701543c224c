"""Implicit Q-learning (Kostrikov et al., ICLR 2022): no action is valued that the data does not have."""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.critics import Critics, q_loss, value_loss
from unio4_lib.learning.learner import follow, make_policy
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun, look_at_values
from unio4_lib.nets.policy import PolicySpec
from unio4_lib.settings.model import CriticsConfig, Hidden, StageConfig


class IqlConfig(StageConfig):
    """The learner."""

    expectile: float = Field(0.7, gt=0, lt=1, description="Expectile of V (paper: 0.7, AntMaze 0.9).")
    temperature: float = Field(
        3.0,
        ge=0,
        description="Factor of advantages in the weights of cloning (paper: 3, AntMaze 10, Adroit 0.5).",
    )
    largest_weight: float = Field(100.0, gt=0, description="Cap of these weights (paper: 100).")
    polyak: float = Field(0.005, gt=0, le=1, description="Rate of the target network (paper: 0.005).")
    hidden: Hidden = Field((256, 256), description="Widths of all networks (paper: 256 x 2).")
    layer_norm: bool = Field(False, description="Layer normalization in Q and V (paper: none).")
    std: Literal["state", "shared"] = Field("shared", description="Std from the state or one per dimension.")
    learning_rate: float = Field(3e-4, gt=0, description="Adam step size of all networks (paper: 3e-4).")


class IqlRun(OffPolicyRun):
    """IQL offline, then online on old and new rows."""

    title: ClassVar[str] = "IQL"

    method: Literal["iql"] = Field("iql", description="The offline-to-online method.")
    iql: IqlConfig = IqlConfig()


class Iql:
    """Twin Q, V and a policy; nothing ever asks Q for an action that no row has."""

    def __init__(self, data: OfflineData, config: IqlRun, generator: torch.Generator) -> None:
        self.settings, self.discount = config.iql, config.train.discount
        own, device = self.settings, data.observations.device
        shape = CriticsConfig(q_hidden=own.hidden, v_hidden=own.hidden, layer_norm=own.layer_norm)
        sizes = data.observation_dim, data.action_dim
        self.critics = Critics(*sizes, shape, generator=generator).to(device)
        self.critics.scale.copy_(data.returns.std().clamp(min=1e-3))
        self.critics.shift.copy_(data.returns.mean())
        self.policy = make_policy(data, PolicySpec(1, *sizes, own.hidden, std=own.std), generator)
        values = [*self.critics.q.parameters(), *self.critics.v.parameters()]
        groups = [{"params": values}, {"params": list(self.policy.parameters())}]
        self.optimizer = torch.optim.Adam(groups, lr=own.learning_rate, fused=True)
        self.updates, self.offline_updates = 0, config.train.steps

    def update(self, batch: Batch) -> Metrics:
        with torch.no_grad():
            next_values = self.critics.values(batch.next_observations)
        values = value_loss(self.critics, batch, self.settings.expectile)
        q_errors = q_loss(self.critics, batch, next_values, self.discount)
        policy = self.policy_loss(batch).mean()
        self.optimizer.param_groups[1]["lr"] = self.settings.learning_rate * self.policy_share()
        self.updates += 1
        self.optimizer.zero_grad(set_to_none=True)
        (values + q_errors + policy).backward()
        self.optimizer.step()
        follow(self.critics.q_target, self.critics.q, self.settings.polyak)
        return {
            "learner/value_loss": values.detach(),
            "learner/q_loss": q_errors.detach(),
            "learner/policy_loss": policy.detach(),
        }

    def policy_loss(self, batch: Batch) -> Tensor:
        """Cloning [B], a row weighs by how much better it was than expected; gradient into the policy."""
        with torch.no_grad():
            target = self.critics.target_min_q(batch.observations, batch.actions)
            advantages = target - self.critics.values(batch.observations)
            weights = torch.exp(self.settings.temperature * advantages).clamp(
                max=self.settings.largest_weight
            )
        # Rows at the bounds count from just within: a mean in the box never quite reaches them.
        return -weights * self.policy.distribution(batch.observations).log_prob(batch.actions)[0]

    def policy_share(self) -> float:
        """Of the step size, for the policy: offline it falls along half a cosine, online it is whole again.

        A policy cloned by weights that keep changing swings from one evaluation to the next.
        """
        if self.updates >= self.offline_updates:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * self.updates / self.offline_updates))

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        values = self.critics.values(batch.observations)
        advantages = self.critics.target_min_q(batch.observations, batch.actions) - values
        return look_at_values(values, returns, advantages)

    def go_online(self) -> None:
        """Nothing is loosened: online it learns as before, from more rows."""

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in PARTS} | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.updates = state["updates"]


PARTS = ("critics", "policy", "optimizer")
ROOM = OffPolicy(
    "iql",
    "implicit Q-learning: values of the data's own actions by expectiles, the policy cloned by advantage",
    IqlRun,
    Iql,
    __name__,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
