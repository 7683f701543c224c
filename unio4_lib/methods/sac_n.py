"""SAC-N and EDAC (An et al., NeurIPS 2021): many critics, of which the most careful one is believed."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.offline_data import Batch
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.sac import Sac, SacConfig
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig


class SacNConfig(SacConfig):
    """The learner."""

    critics: int = Field(
        10, ge=2, description="Action values, of which the smallest counts (SAC-N: 10-500, EDAC: 10-50)."
    )
    diversity: float = Field(
        1.0,
        ge=0,
        description="Weight of what keeps the critics' gradients by the action apart (EDAC: 1-5, SAC-N: 0).",
    )


class SacNTrainConfig(OffPolicyTrainConfig):
    """Offline training: only pessimism holds the policy, which bootstrapping has to bring through first."""

    monte_carlo_share: float = Field(
        0.0, ge=0, lt=1, description="Share of the updates, the first ones, that fit the returns of the data."
    )


class SacNRun(OffPolicyRun):
    """SAC with many critics, offline and online."""

    title: ClassVar[str] = "SAC-N / EDAC"

    method: Literal["sac_n"] = Field("sac_n", description="The offline-to-online method.")
    train: SacNTrainConfig = SacNTrainConfig()
    sac_n: SacNConfig = SacNConfig()


class SacN(Sac):
    """SAC whose critics, where they agree by habit, are driven apart."""

    settings: SacNConfig

    def q_loss(self, batch: Batch) -> Tensor:
        losses = super().q_loss(batch)
        if self.settings.diversity == 0:
            return losses
        return losses + self.settings.diversity * self.alignment(batch) / self.q.scale.square()

    def alignment(self, batch: Batch) -> Tensor:
        """Sum over pairs of critics of the cosine between their gradients by the data's action [B].

        Each pair counts twice, by the number of other critics, as in the paper.
        """
        members = self.settings.critics
        actions = batch.actions.expand(members, -1, -1).clone().requires_grad_(True)
        observations = batch.observations.expand(members, -1, -1)
        values = self.q.values(observations, actions)
        (gradients,) = torch.autograd.grad(values.sum(), actions, create_graph=True)
        directions = gradients / (gradients.norm(dim=-1, keepdim=True) + 1e-10)
        # The sum over pairs is the square of the sum, without each with itself.
        together = directions.sum(dim=0).square().sum(dim=-1)
        alone = directions.square().sum(dim=(0, 2))
        return (together - alone) / (members - 1)


ROOM = OffPolicy(
    "sac_n",
    "SAC-N and EDAC: an ensemble of values, of which the smallest counts",
    SacNRun,
    SacN,
    __name__,
    shown={"critics/value_mean": "value", "learner/disagreement": "disagreement"},
)
METHOD = ROOM.method()
