"""E2O / ENOTO (Zhao et al., IJCAI 2024): many careful critics offline, the same ones hopeful online."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.methods.cql import Cql, CqlConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.sac import Sac, SacConfig
from unio4_lib.methods.sac_n import SacN, SacNConfig
from unio4_lib.settings.offpolicy import MIXING, Mixing, OffPolicyTuneConfig


class PairedConfig(SacConfig):
    """The learner."""

    target: Literal["pairs", "min"] = Field(
        "pairs",
        description="Value of what follows online: the mean over pairs of the smaller, or the smallest.",
    )
    backup_temperature: float = Field(
        10.0,
        ge=0,
        description="How fast rows online count less where critics disagree on what follows, by their std in "
        "scaled rewards (paper: 10); 0 counts all alike.",
    )
    optimistic: bool = Field(
        True, description="Whether it acts online by the upper bound of Q (paper) or plainly (released code)."
    )
    optimism: float = Field(10.0, ge=0, description="Stds of Q in that bound (paper: 10).")
    candidates: int = Field(10, ge=1, description="Actions of which the highest bound is done (paper: 10).")


class E2oConfig(PairedConfig, CqlConfig, SacNConfig):
    """The learner."""

    critics: int = Field(10, ge=2, description="Action values in the ensemble (paper: 10).")
    offline: Literal["cql", "edac"] = Field(
        "cql", description="What holds values down offline: CQL-N (paper), or EDAC at a quarter of its cost."
    )
    calibrated: bool = Field(
        False, description="Whether CQL-N leaves values above the return of the data (paper: no)."
    )
    weight_online: float = Field(0.0, ge=0, description="Weight of CQL's gap online (paper: 0).")
    entropy_backup: bool = Field(
        True, description="Whether the value of what follows has an entropy bonus (released code: yes)."
    )
    policy_learning_rate: float = Field(
        3e-5, gt=0, description="Adam step size of policy and temperature (released code: 3e-5, 1e-4)."
    )


class E2oTuneConfig(OffPolicyTuneConfig):
    """Fine-tuning of an off-policy learner in its environment, from new rows only."""

    mixing: Mixing = Field("online", description=MIXING)


class E2oRun(OffPolicyRun):
    """Many careful critics offline; online they hope where they disagree."""

    title: ClassVar[str] = "E2O / ENOTO"

    method: Literal["e2o"] = Field("e2o", description="The offline-to-online method.")
    finetune: E2oTuneConfig = E2oTuneConfig()
    e2o: E2oConfig = E2oConfig()


class PairedSac(Sac):
    """SAC with many critics that, once it is online, is less careful and tries what they disagree on."""

    settings: PairedConfig
    online = False

    def q_loss(self, batch: Batch) -> Tensor:
        """As SAC's; online a row counts by how much the critics agree on what follows."""
        if not self.online:
            return super().q_loss(batch)
        with torch.no_grad():
            actions, log_probs = self.sample(batch.next_observations)
            values = self.q.slow_values(batch.next_observations, actions)
            following = values.amin(dim=0) if self.settings.target == "min" else mean_of_pairs(values)
            if self.settings.entropy_backup:
                following = following - self.temperature.value() * log_probs
            targets = batch.rewards + self.discount * (1.0 - batch.terminals) * following
            trust = agreement(values, self.settings.backup_temperature)
        return trust * self.q.errors(batch, targets).sum(dim=0)

    def explore(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Of several actions of the policy the one with the highest upper bound of Q."""
        if not self.settings.optimistic:
            return super().explore(observations, noise)
        actions, _ = self.samples(observations, self.settings.candidates)
        places = self.upper_bound(observations, actions).argmax(dim=1)
        return actions[torch.arange(len(actions), device=actions.device), places]

    def upper_bound(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Mean and stds of Q [B, K] for actions [B, K, A]."""
        repeats = observations.repeat_interleave(actions.shape[1], dim=0)
        values = self.q.values(repeats, actions.flatten(0, 1))
        bound = values.mean(dim=0) + self.settings.optimism * values.std(dim=0, correction=0)
        return bound.view(actions.shape[:2])


def mean_of_pairs(values: Tensor) -> Tensor:
    """Of the smaller one of each pair of critics the mean [B]: the k-th smallest is it in N - k pairs."""
    count = len(values)
    shares = torch.arange(count - 1, -1, -1, dtype=values.dtype, device=values.device)
    shares = shares / (0.5 * count * (count - 1))
    return (shares[:, None] * values.sort(dim=0).values).sum(dim=0)


def agreement(values: Tensor, temperature: float) -> Tensor:
    """Weights of rows [B] from the values of all critics [N, B]: 1 where they agree, 0.5 where far apart."""
    return torch.sigmoid(-temperature * values.std(dim=0, correction=0)) + 0.5


class E2o(Cql, SacN, PairedSac):
    """CQL's gap or EDAC's cosines over the ensemble offline; online what is left is the ensemble.

    Each base adds to the loss of the next one: CQL's to EDAC's to that of the pairs.
    """

    settings: E2oConfig

    def __init__(self, data: OfflineData, config: E2oRun, generator: torch.Generator) -> None:
        by_gap = config.e2o.offline == "cql"
        unused = {"diversity": 0.0} if by_gap else {"weight": 0.0}
        own = config.e2o.model_copy(update=unused)
        super().__init__(data, config.model_copy(update={"e2o": own}), generator)

    def go_online(self) -> None:
        """Nothing holds values down any more but their own smallest pairs."""
        super().go_online()
        self.online = True
        self.settings = self.settings.model_copy(update={"diversity": 0.0})


ROOM = OffPolicy(
    "e2o",
    "E2O / ENOTO: an ensemble, careful offline, hopeful online by pairs and upper bounds",
    E2oRun,
    E2o,
    __name__,
    shown={"critics/value_mean": "value", "learner/disagreement": "disagreement"},
)
METHOD = ROOM.method()
