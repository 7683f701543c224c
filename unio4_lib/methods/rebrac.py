"""ReBRAC (Tarasov et al., NeurIPS 2023): TD3 held near the data both where it acts and where it hopes."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3 import Td3, Td3Config
from unio4_lib.settings.model import Hidden
from unio4_lib.settings.offpolicy import BalancedTuneConfig


class RebracConfig(Td3Config):
    """The learner."""

    policy_imitation: float = Field(
        0.1,
        ge=0,
        description="Weight of the policy's squared distance from the data's action, against Q in units of "
        "its own size (paper: 0.001-0.1 by task).",
    )
    value_imitation: float = Field(
        0.1,
        ge=0,
        description="What a squared distance from the data's next action takes off the value of what follows "
        "(paper: 0-0.5 by task).",
    )
    imitation_online: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of both weights that is left at the end of a linear fall online (paper: 0.5).",
    )
    hidden: Hidden = Field((256, 256), description="Widths of all networks (paper: 256 x 3).")


class RebracRun(OffPolicyRun):
    """ReBRAC offline, then online with less and less imitation."""

    title: ClassVar[str] = "ReBRAC"

    method: Literal["rebrac"] = Field("rebrac", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    rebrac: RebracConfig = RebracConfig()


class Rebrac(Td3):
    """TD3 with a distance from the data in the policy's loss and in Q's targets."""

    numbers = ("switched_at",)
    settings: RebracConfig

    def __init__(self, data: OfflineData, config: RebracRun, generator: torch.Generator) -> None:
        super().__init__(data, config, generator)
        self.fall = config.finetune.env_steps * config.finetune.updates_per_step
        self.switched_at: int | None = None  # updates of Q behind it when it went online

    def policy_value(self, values: Tensor) -> Tensor:
        return values.min(dim=0).values

    def policy_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        distance = (actions - batch.actions).square().sum(dim=-1)
        return self.imitation() * self.settings.policy_imitation * distance

    def value_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        """Nothing where the data does not say what was done next."""
        distance = (actions - batch.next_actions).square().sum(dim=-1)
        return self.imitation() * self.settings.value_imitation * batch.followed * distance

    def imitation(self) -> float | Tensor:
        """Share of both weights that counts now."""
        if self.switched_at is None:
            return 1.0
        gone = ((self.updates.groups["q"].clock - self.switched_at) / self.fall).clamp(max=1.0)
        return 1.0 - gone * (1.0 - self.settings.imitation_online)

    def go_online(self) -> None:
        """From now on imitation counts less and less."""
        self.switched_at = self.updates.groups["q"].taken


ROOM = OffPolicy(
    "rebrac",
    "ReBRAC: TD3 held near the data where it acts and in what it hopes for",
    RebracRun,
    Rebrac,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
