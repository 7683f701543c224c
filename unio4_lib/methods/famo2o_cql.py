"""FamO2O (Wang et al., NeurIPS 2023) on CQL: how much values count against entropy, chosen for each state."""

from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unio4_lib.learning.learner import OTHER_STREAM
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.updates import Group
from unio4_lib.methods.cql import Cql, CqlConfig
from unio4_lib.methods.famo2o import balanced, check_range, family_parts, uniform
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.nets.kinds import Squashed, SquashedFamilyPolicy
from unio4_lib.nets.policy import PolicySpec


class FamO2OCqlConfig(CqlConfig):
    """The learner."""

    coefficient_min: float = Field(
        0.5, ge=0, description="Smallest factor of values against entropy (code: 0.5)."
    )
    coefficient_max: float = Field(
        1.5, ge=0, description="Largest such factor (code: 1.5); both 1: plain CQL with these settings."
    )
    weight: float = Field(
        1.0, ge=0, description="Weight of the gap between other actions' values and the data's (code: 1)."
    )
    weight_online: float = Field(1.0, ge=0, description="The same online (code: 1).")
    calibrated: bool = Field(
        False, description="Values of the policy's actions are not pushed below the return of the data."
    )
    layer_norm: bool = Field(True, description="Layer normalization in Q (code: yes).")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_range("famo2o_cql", self.coefficient_min, self.coefficient_max)
        return self


class FamO2OCqlRun(OffPolicyRun):
    """A family of policies and their balance on conservative values, offline and online."""

    title: ClassVar[str] = "FamO2O on CQL"

    method: Literal["famo2o_cql"] = Field("famo2o_cql", description="The offline-to-online method.")
    famo2o_cql: FamO2OCqlConfig = FamO2OCqlConfig()


class FamO2OCql(Cql):
    """CQL with a policy for each factor of values in a range, and a balance that chooses one by state."""

    streams: ClassVar[tuple[str, ...]] = ("draws", "choices")
    settings: FamO2OCqlConfig
    policy: SquashedFamilyPolicy

    def __init__(self, data: OfflineData, config: FamO2OCqlRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        rate = self.settings.policy_learning_rate
        self.updates.groups["policy"] = Group(family_parts(self.policy), rate)
        self.updates.groups["balance"] = Group([self.policy.balance], rate)
        seed = self.draws.initial_seed() + OTHER_STREAM
        # Of factors, and what depends on them.
        self.choices = torch.Generator(self.draws.device).manual_seed(seed)
        self.online = False

    def shape(self, spec: PolicySpec) -> PolicySpec:
        ends = self.settings.coefficient_min, self.settings.coefficient_max
        return replace(spec, kind="squashed_family", coefficients=ends)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        factors = self.factors(batch.observations)
        drawn = self.draw(self.policy.member(batch.observations, factors), 1)
        actions, log_probs = (part[:, 0] for part in drawn)
        values = self.q.values(batch.observations, actions).min(dim=0).values
        losses = {
            "q": self.q_loss(batch),
            "policy": self.temperature.value() * log_probs - factors * values,
            "temperature": self.temperature_loss(log_probs),
        }
        if self.settings.coefficient_min < self.settings.coefficient_max:  # there is something to choose
            losses["balance"] = self.balance_loss(batch.observations)
        return losses, log_probs

    def balance_loss(self, observations: Tensor) -> Tensor:
        """Minus the value [B] of what the policies of its choice do."""
        places = self.policy.balance(observations).sample(self.noise(len(observations), 1))[0, :, 0]
        acting = self.policy.member(observations, self.policy.coefficients(places))
        actions = acting.sample(self.noise(len(observations), self.policy.spec.action_dim))[0]
        return -self.q.values(observations, actions).min(dim=0).values

    def factors(self, observations: Tensor) -> Tensor:
        """Factors [B] to learn with: all of the range alike, online those that the balance would choose."""
        return (balanced if self.online else uniform)(self.policy, observations, self.choices)

    def learning(self, observations: Tensor) -> Squashed:
        return self.policy.member(observations, self.factors(observations))

    def acting(self, observations: Tensor) -> Squashed:
        """What is hoped for, and done: by the balance's choice."""
        return self.policy.member(observations, balanced(self.policy, observations, self.choices))

    def explore(self, observations: Tensor, noise: Tensor) -> Tensor:
        return self.acting(observations).sample(noise)[0]

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.choices, device=self.choices.device)

    def go_online(self) -> None:
        """From now on the family learns where the balance would use it."""
        super().go_online()
        self.online = True

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        chosen = self.policy.best(batch.observations)
        figures = {"learner/coefficient": chosen.mean(), "learner/coefficient_std": chosen.std()}
        return super().look(batch, returns) | figures


ROOM = OffPolicy(
    "famo2o_cql",
    "FamO2O on CQL: a family of policies on careful values, and a balance that chooses one for each state",
    FamO2OCqlRun,
    FamO2OCql,
    __name__,
    composite=True,
    shown={"critics/value_mean": "value", "learner/coefficient": "coefficient"},
)
METHOD = ROOM.method()
