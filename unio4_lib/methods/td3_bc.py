"""TD3+BC (Fujimoto & Gu, NeurIPS 2021): the best action by Q, held near the data's own."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from unio4_lib.learning.offline_data import Batch
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3 import Td3, Td3Config


class Td3BcConfig(Td3Config):
    """The learner."""

    alpha: float = Field(
        2.5, ge=0, description="Weight of Q, in units of its own size, against imitation (paper: 2.5)."
    )
    imitation_online: float = Field(
        0.5, ge=0, le=1, description="Share of the weight of imitation that is left online; 0 is plain TD3."
    )


class Td3BcRun(OffPolicyRun):
    """TD3+BC offline, then online with less imitation."""

    title: ClassVar[str] = "TD3+BC"

    method: Literal["td3_bc"] = Field("td3_bc", description="The offline-to-online method.")
    td3_bc: Td3BcConfig = Td3BcConfig()


class Td3Bc(Td3):
    """TD3 whose policy stays near the data's actions."""

    settings: Td3BcConfig

    imitation = 1.0  # what it counts

    def value_weight(self) -> float:
        return self.settings.alpha

    def policy_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        return self.imitation * (actions - batch.actions).square().mean(dim=-1)

    def go_online(self) -> None:
        """Imitation counts less from now on."""
        self.imitation = self.settings.imitation_online


ROOM = OffPolicy(
    "td3_bc",
    "TD3+BC: the best action by Q, held near the data's own",
    Td3BcRun,
    Td3Bc,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
