"""BAQ (Zu et al., 2025), reconstructed: what is far from the data's behavior teaches values less at first.

No code was found, and the full text was not at hand. This fills in what the abstract and a review tell.
"""

import math
from collections.abc import Hashable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.learner import make_policy
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.updates import Group, half_cosine
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3 import Td3
from unio4_lib.methods.td3_bc import Td3BcConfig
from unio4_lib.nets.policy import PolicySpec
from unio4_lib.settings.offpolicy import BalancedTuneConfig

LOOKED_AT = 65_536  # rows of the data behind the unit of distances
SMALLEST_UNIT = 1e-4  # of a squared distance: also behavior without noise is cloned only so well


class BaqConfig(Td3BcConfig):
    """The learner."""

    imitation_online: float = Field(
        0.0, ge=0, le=1, description="Share of the weight of imitation of rows that is left online (ours)."
    )
    sensitivity: float = Field(
        1.0,
        ge=0,
        description="How fast weights of rows fall with their distance from the behavior (ours); 0: not.",
    )
    half_at: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Share of the data's rows that weigh more than a half at the switch, at sensitivity 1.",
    )
    consistency: float = Field(
        1.0,
        ge=0,
        description="Weight of the policy's squared distance from the behavior at the switch (ours).",
    )
    relaxed_after: float = Field(
        0.5, gt=0, le=1, description="Share of the online phase after which both have faded away (ours)."
    )


class BaqRun(OffPolicyRun):
    """TD3+BC offline, then online with values that trust what is near the data first."""

    title: ClassVar[str] = "BAQ (reconstructed)"

    method: Literal["baq"] = Field("baq", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    baq: BaqConfig = BaqConfig()


class Baq(Td3):
    """TD3+BC with a clone of the data's behavior, which decides what is believed at first online."""

    parts: ClassVar[tuple[str, ...]] = (*Td3.parts, "behavior")
    numbers: ClassVar[tuple[str, ...]] = ("switched_at", "sharpness")
    settings: BaqConfig

    def __init__(self, data: OfflineData, config: BaqRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        self.data, own = data, config.baq
        spec = PolicySpec(1, data.observation_dim, data.action_dim, own.hidden)
        self.behavior = make_policy(data, spec, generator)
        falling = half_cosine(config.train.steps)
        self.updates.groups["behavior"] = Group([self.behavior], own.learning_rate, falling)
        self.fade = own.relaxed_after * config.finetune.env_steps * config.finetune.updates_per_step
        self.switched_at: int | None = None  # updates of Q behind it when it went online
        self.sharpness = 0.0  # of weights, at the switch

    def update(self, batch: Batch) -> Metrics:
        metrics = super().update(batch)
        if self.switched_at is None:
            found = self.behavior.distribution(batch.observations)
            return metrics | self.updates.step({"behavior": -found.log_prob(batch.actions)[0]})
        return metrics | {"learner/row_weight": self.row_weights(batch).mean()}

    def phase(self) -> Hashable:
        """Whether there is doubt before Q moves and after, and whether the policy moves."""
        taken = self.updates.groups["q"].taken
        return super().phase(), self.in_doubt(taken), self.in_doubt(taken + 1)

    def loss_weights(self, batch: Batch) -> dict[str, Tensor]:
        doubtful = self.in_doubt(self.updates.groups["q"].taken) and self.sharpness > 0
        return {"q": self.row_weights(batch)} if doubtful else {}

    @torch.no_grad()
    def row_weights(self, batch: Batch) -> Tensor:
        """What each row [B] counts in Q: less, the farther its action is from the behavior's."""
        return torch.exp(-self.doubt() * self.sharpness * self.distances(batch.observations, batch.actions))

    def distances(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Squared distances [B] of actions [B, A] from the behavior's mean, averaged over dimensions."""
        return (self.behavior.distribution(observations).mean[0] - actions).square().mean(dim=-1)

    def doubt(self) -> float | Tensor:
        """What is left of weights and consistency: 1 at the switch, then less and less; none offline."""
        if self.switched_at is None:
            return 0.0
        return (1.0 - (self.updates.groups["q"].clock - self.switched_at) / self.fade).clamp(min=0.0)

    def in_doubt(self, taken: int) -> bool:
        """Whether any is left after so many updates of Q."""
        return self.switched_at is not None and taken - self.switched_at < self.fade

    def value_weight(self) -> float:
        return self.settings.alpha

    def policy_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        share = 1.0 if self.switched_at is None else self.settings.imitation_online
        penalty = share * (actions - batch.actions).square().mean(dim=-1)
        if self.settings.consistency == 0 or not self.in_doubt(self.updates.groups["q"].taken):
            return penalty
        kept = self.doubt() * self.settings.consistency
        return penalty + kept * self.distances(batch.observations, actions)

    @torch.no_grad()
    def go_online(self) -> None:
        """From now on rows count by their distance, whose unit is that of the data's own rows."""
        rows = slice(None, None, max(1, len(self.data) // LOOKED_AT))
        found = self.distances(self.data.observations[rows], self.data.actions[rows])
        unit = max(SMALLEST_UNIT, float(found.quantile(self.settings.half_at)))
        self.sharpness = self.settings.sensitivity * math.log(2.0) / unit
        self.switched_at = self.updates.groups["q"].taken


ROOM = OffPolicy(
    "baq",
    "BAQ (reconstructed) on TD3+BC: online values believe first what is near the data's behavior",
    BaqRun,
    Baq,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
