"""FamO2O (Wang et al., NeurIPS 2023): policies from careful to bold, of which each state has its own."""

from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.updates import Group, half_cosine
from unio4_lib.methods.iql import ImplicitConfig, ImplicitQ
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.sac import Temperature
from unio4_lib.nets.kinds import Family, FamilyPolicy
from unio4_lib.nets.policy import PolicySpec

WANTED_ENTROPY = -0.5  # of the balance, which the temperature is led to (released code)


def check_range(section: str, low: float, high: float) -> None:
    """Factors go from small to large."""
    if low > high:
        raise ValueError(
            f"{section}.coefficient_min is {low}; expected at most {section}.coefficient_max, which is {high}"
        )


def family_parts(policy: Family) -> list[nn.Parameter]:
    """All of a policy but its balance."""
    chosen = set(policy.balance.parameters())
    return [part for part in policy.parameters() if part not in chosen]


@torch.no_grad()
def uniform(policy: Family, observations: Tensor, draws: torch.Generator) -> Tensor:
    """For each observation any coefficient [B] of the range."""
    chance = torch.rand(len(observations), generator=draws, device=draws.device)
    return policy.coefficients(2.0 * chance - 1.0)


@torch.no_grad()
def balanced(policy: Family, observations: Tensor, draws: torch.Generator) -> Tensor:
    """For each observation a coefficient [B] as the balance would choose it."""
    noise = torch.randn(len(observations), 1, generator=draws, device=draws.device)
    return policy.coefficients(policy.balance(observations).sample(noise)[0, :, 0])


class FamO2OConfig(ImplicitConfig):
    """The learner."""

    coefficient_min: float = Field(
        1.0, ge=0, description="Smallest factor of advantages in the weights of cloning (code: 1, AntMaze 8)."
    )
    coefficient_max: float = Field(
        5.0,
        ge=0,
        description="Largest such factor (code: 5, AntMaze 14); the smallest one: plain IQL.",
    )
    temperature: float = Field(
        1.0, gt=0, description="Weight of the balance's entropy at the start (code: 1)."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_range("famo2o", self.coefficient_min, self.coefficient_max)
        return self


class FamO2ORun(OffPolicyRun):
    """A family of policies and their balance, offline and online."""

    title: ClassVar[str] = "FamO2O"

    method: Literal["famo2o"] = Field("famo2o", description="The offline-to-online method.")
    famo2o: FamO2OConfig = FamO2OConfig()


class FamO2O(ImplicitQ):
    """IQL for each factor of advantages in a range, and a balance that learns which one pays in a state."""

    parts: ClassVar[tuple[str, ...]] = ("policy", "critics", "temperature")
    settings: FamO2OConfig
    policy: FamilyPolicy

    def __init__(self, data: OfflineData, config: FamO2ORun, generator: torch.Generator) -> None:
        self.temperature = Temperature(config.famo2o.temperature).to(data.observations.device)
        super().__init__(data, config, generator)
        self.online = False

    def shape(self, spec: PolicySpec) -> PolicySpec:
        ends = self.settings.coefficient_min, self.settings.coefficient_max
        return replace(spec, kind="family", coefficients=ends)

    def groups(self, offline_updates: int) -> dict[str, Group]:
        """The balance moves by what its choices are worth, the family by cloning alone."""
        rate = self.settings.learning_rate
        return super().groups(offline_updates) | {
            "policy": Group(family_parts(self.policy), rate, half_cosine(offline_updates)),
            "balance": Group([self.policy.balance], rate),
            "temperature": Group([self.temperature], rate),
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return super().losses(batch) | self.balance_losses(batch)

    def policy_loss(self, batch: Batch, advantages: Tensor) -> Tensor:
        """Cloning [B], in each row by the policy of another factor and by advantages times this factor."""
        coefficients = self.coefficients(batch.observations)
        found = self.policy.member(batch.observations, coefficients)
        return self.cloning(found, batch.actions, coefficients * advantages)

    def coefficients(self, observations: Tensor) -> Tensor:
        """Factors [B] to learn with: all of the range alike, online those that the balance would choose."""
        return (balanced if self.online else uniform)(self.policy, observations, self.draws)

    def balance_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of the balance, minus the value [B] of what its choices do; and of the weight of its entropy."""
        observations, policy = batch.observations, self.policy
        found = policy.balance(observations)
        places, log_probs = found.sample_with_log_prob(self.normal(len(observations), 1))
        acting = policy.member(observations, policy.coefficients(places[0, :, 0]))
        actions = acting.sample(self.normal(*batch.actions.shape))[0].clamp(-1.0, 1.0)
        values = self.critics.target_min_q(observations, actions)
        surplus = -log_probs[0].detach() - WANTED_ENTROPY
        return {
            "balance": self.temperature.value() * log_probs[0] - values,
            "temperature": self.temperature.log.exp() * surplus,
        }

    def go_online(self) -> None:
        """From now on the family learns where the balance would use it."""
        self.online = True

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        chosen = self.policy.best(batch.observations)
        figures = {"learner/coefficient": chosen.mean(), "learner/coefficient_std": chosen.std()}
        return super().look(batch, returns) | figures


ROOM = OffPolicy(
    "famo2o",
    "FamO2O on IQL: a family of policies from careful to bold, and a balance that chooses one for each state",
    FamO2ORun,
    FamO2O,
    __name__,
    composite=True,
    shown={"critics/value_mean": "value", "learner/coefficient": "coefficient"},
)
METHOD = ROOM.method()
