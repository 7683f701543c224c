"""SPOT (Wu et al., NeurIPS 2022): TD3 held where the data's own actions are likely."""

from collections.abc import Hashable
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.learning.offpolicy import with_returns
from unio4_lib.learning.updates import Group
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3 import Td3, Td3Config
from unio4_lib.nets.density import ActionDensity
from unio4_lib.settings.model import Hidden


class SpotConfig(Td3Config):
    """The learner."""

    weight: float = Field(
        0.1, ge=0, description="Weight of unlikeliness against Q in units of its own size (paper: 0.025-1)."
    )
    weight_online: float = Field(
        0.2, ge=0, le=1, description="Share of it below which it does not fall online (paper: 0.2-0.5)."
    )
    density_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the offline updates, the first ones, that learn the density."
    )
    density_hidden: Hidden = Field((750, 750), description="Widths of the density (paper: 750 x 2).")
    density_learning_rate: float = Field(
        1e-3, gt=0, description="Adam step size of the density (paper: 1e-3)."
    )
    divergence: float = Field(
        0.5, ge=0, description="Weight of the codes' divergence in the density (paper: 0.5)."
    )
    codes: int = Field(
        1,
        ge=1,
        description="Codes behind the unlikeliness of the policy's actions: one, or several weighed by "
        "importance, which is nearer to the density (port: 1).",
    )
    discount_online: float | None = Field(
        None, ge=0, lt=1, description="Discount online (port: 0.995 in AntMaze); null: as offline."
    )
    policy_learning_rate: float = Field(1e-4, gt=0, description="Adam step size of the policy (paper: 1e-4).")

    @model_validator(mode="after")
    def _codes_have_a_noise(self) -> Self:
        if self.codes > 1 and self.divergence == 0:
            raise ValueError(
                f"codes is {self.codes} and divergence 0; expected a divergence above 0, which says how far "
                "actions may lie from what their code says"
            )
        return self


class SpotRun(OffPolicyRun):
    """SPOT offline, then online with less and less of a hold."""

    title: ClassVar[str] = "SPOT"

    method: Literal["spot"] = Field("spot", description="The offline-to-online method.")
    spot: SpotConfig = SpotConfig()


class Spot(Td3):
    """TD3 whose policy pays for actions that are unlikely in the data."""

    parts: ClassVar[tuple[str, ...]] = (*Td3.parts, "density")
    settings: SpotConfig

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        own, sizes = self.settings, (data.observation_dim, data.action_dim)
        self.density = ActionDensity(*sizes, own.density_hidden, generator).to(data.observations.device)
        self.updates.groups["policy"] = Group([self.policy], own.policy_learning_rate)
        self.updates.groups["density"] = Group([self.density], own.density_learning_rate)
        self.density_updates = round(own.density_share * config.train.steps)
        self.fits_returns = config.train.monte_carlo_share > 0
        self.fall = config.finetune.env_steps * config.finetune.updates_per_step
        self.online = False

    def update(self, batch: Batch) -> Metrics:
        return self.learn_density(batch) if self.learns_density() else super().update(batch)

    def learns_density(self) -> bool:
        """At first, and never again."""
        return not self.online and self.updates.groups["density"].taken < self.density_updates

    def phase(self) -> Hashable:
        """Whether it learns the density, and else what holds and whether the policy moves."""
        if self.learns_density():
            return "density"
        return super().phase(), self.free(self.updates.groups["q"].taken + 1)

    def learn_density(self, batch: Batch) -> Metrics:
        """Learn the density; meanwhile the policy waits, and values fit the returns of the data."""
        losses = {"density": self.unlikeliness(batch.observations, batch.actions)}
        if self.fits_returns:
            known = with_returns(batch)
            losses["q"] = self.q.errors(known, known.rewards).sum(dim=0)
        metrics = self.updates.step(losses)
        self.updates.follow()
        return metrics

    def unlikeliness(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Of actions [B, A] in the data, by one code for each [B]."""
        noise = self.normal(len(actions), self.density.codes)
        return self.density.losses(observations, actions, noise, self.settings.divergence)

    def policy_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        if self.free(self.updates.groups["q"].taken):
            return super().policy_penalty(batch, actions)
        weight = self.weight()
        if self.settings.codes == 1:
            return weight * self.unlikeliness(batch.observations, actions)
        noise = self.normal(self.settings.codes, len(actions), self.density.codes)
        bound = self.density.bound(batch.observations, actions, noise, self.settings.divergence)
        return weight * bound

    def weight(self) -> float | Tensor:
        """What the penalty weighs now: online less, along a line as far as is asked for."""
        if not self.online:
            return self.settings.weight
        left = 1.0 - self.updates.groups["q"].clock / self.fall
        return self.settings.weight * left.clamp(min=self.settings.weight_online)

    def free(self, taken: int) -> bool:
        """Whether nothing is left of the penalty after so many updates of Q."""
        fallen = self.online and self.settings.weight_online == 0 and taken >= self.fall
        return fallen or self.settings.weight == 0

    def go_online(self) -> None:
        """From now on the penalty falls, and what is far off may count for more; Adam begins anew."""
        self.online = True
        if self.settings.discount_online is not None:
            self.discount = self.settings.discount_online
        self.updates.groups["q"] = Group([self.q.q], self.settings.learning_rate)
        self.updates.groups["policy"] = Group([self.policy], self.settings.policy_learning_rate)

    @torch.no_grad()
    def look(self, batch: Batch, returns: Tensor) -> Metrics:
        actions = self.policy.distribution(batch.observations).mean[0]
        noise = actions.new_zeros(len(actions), self.density.codes)
        own = self.density.losses(batch.observations, batch.actions, noise, self.settings.divergence)
        found = self.density.losses(batch.observations, actions, noise, self.settings.divergence)
        figures = {"learner/unlikeliness": found.mean(), "learner/data_unlikeliness": own.mean()}
        return super().look(batch, returns) | figures


ROOM = OffPolicy(
    "spot",
    "SPOT: the best action by Q among those that are likely in the data",
    SpotRun,
    Spot,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
