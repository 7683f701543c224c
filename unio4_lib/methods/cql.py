"""CQL (Kumar et al., NeurIPS 2020), Cal-QL (Nakamoto et al., NeurIPS 2023): unseen actions are worth less."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.sac import Sac, SacConfig
from unio4_lib.nets.kinds import Squashed
from unio4_lib.settings.offpolicy import BalancedTuneConfig


class CqlConfig(SacConfig):
    """The learner."""

    weight: float = Field(
        5.0, ge=0, description="Weight of the gap between other actions' values and the data's (paper: 5-10)."
    )
    weight_online: float = Field(
        5.0, ge=0, description="The same online (Cal-QL: as offline, or less); 0 is plain SAC."
    )
    actions: int = Field(
        4, ge=1, description="Actions of each kind that stand for all: random, now, next (paper: 10)."
    )
    calibrated: bool = Field(
        True,
        description="Values of the policy's actions are not pushed below the return of the data (Cal-QL); "
        "offline only.",
    )
    smallest_gap: float = Field(-200.0, lt=0, description="A gap is not widened below this (paper: -200).")
    target_actions: int = Field(
        1, ge=1, description="Next actions of which the best is the target (paper: 1, AntMaze and Adroit 10)."
    )
    entropy_backup: bool = Field(
        False, description="Whether the value of what follows has an entropy bonus (paper: no)."
    )
    policy_learning_rate: float = Field(
        1e-4, gt=0, description="Adam step size of policy and temperature (paper: 3e-5 to 1e-4)."
    )


class CqlRun(OffPolicyRun):
    """Conservative values offline, then online as much as is asked for."""

    title: ClassVar[str] = "CQL / Cal-QL"

    method: Literal["cql"] = Field("cql", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    cql: CqlConfig = CqlConfig()


class Cql(Sac):
    """SAC whose values are pushed down for actions that the data does not have, and up for those it has."""

    settings: CqlConfig

    def __init__(self, data: OfflineData, config: OffPolicyRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        self.weight, self.calibrated = self.settings.weight, self.settings.calibrated

    def q_loss(self, batch: Batch) -> Tensor:
        losses = super().q_loss(batch)
        if self.weight == 0:
            return losses
        return losses + self.weight * self.gap(batch).sum(dim=0) / self.q.scale.square()

    def gap(self, batch: Batch) -> Tensor:
        """How much more all other actions promise than the data's own, of each Q [N, B]."""
        count, dim = self.settings.actions, batch.actions.shape[-1]
        shape = (len(batch.rewards), count, dim)
        others = 2.0 * torch.rand(shape, generator=self.draws, device=self.draws.device) - 1.0
        with torch.no_grad():
            now, now_density = self.draw(self.learning(batch.observations), count)
            later, later_density = self.samples(batch.next_observations, count)
        found = self.action_values(batch.observations, torch.cat([others, later, now], dim=1))
        random, policy = found[..., :count], found[..., count:]
        if self.calibrated:
            policy = torch.maximum(policy, batch.returns[:, None])
        # Importance weights: the three kinds are samples of densities of their own.
        policy = policy - torch.cat([later_density, now_density], dim=1)
        promised = torch.cat([random + dim * math.log(2.0), policy], dim=-1).logsumexp(dim=-1)
        gap = promised - self.q.values(batch.observations, batch.actions)
        return gap.clamp(min=self.settings.smallest_gap)

    def learning(self, observations: Tensor) -> Squashed:
        """The policy [1, B, A] as it learns."""
        return self.acting(observations)

    def action_values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q [N, B, K] of K actions [B, K, A] in each row."""
        repeats = repeated(observations, actions.shape[1])
        flat = self.q.values(repeats.flatten(0, 1), actions.flatten(0, 1))
        return flat.view(len(flat), *actions.shape[:2])

    def following(self, batch: Batch) -> Tensor:
        """Value [B] of what follows: of some of the policy's actions the best."""
        count = self.settings.target_actions
        if count == 1:
            return super().following(batch)
        states = repeated(batch.next_observations, count)
        actions, log_probs = self.samples(batch.next_observations, count)
        found = self.target_value(self.q.slow_values(states.flatten(0, 1), actions.flatten(0, 1)))
        best, place = found.view(-1, count).max(dim=1)
        if not self.settings.entropy_backup:
            return best
        return best - self.temperature.value() * log_probs.gather(1, place[:, None])[:, 0]

    def go_online(self) -> None:
        """Returns of new rows are not known, and other actions will be tried."""
        self.weight, self.calibrated = self.settings.weight_online, False


def repeated(rows: Tensor, count: int) -> Tensor:
    """Each row [B, D] so many times [B, count, D]."""
    return rows[:, None].expand(-1, count, -1)


ROOM = OffPolicy(
    "cql",
    "CQL and Cal-QL: values of actions that the data does not have are kept low",
    CqlRun,
    Cql,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
