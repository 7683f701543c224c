"""APL (Zheng et al., AAAI 2023) on TD3+BC: imitation of all that was seen, not of what is done now."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from unio4_lib.learning.offline_data import Batch
from unio4_lib.methods.apl import Recent, RecentConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.td3_bc import Td3Bc, Td3BcConfig


class AplTd3BcConfig(RecentConfig, Td3BcConfig):
    """The learner."""

    imitation_online: float = Field(
        1.0, ge=0, le=1, description="Share of the weight of imitation that is left online (code: 1)."
    )


class AplTd3BcRun(OffPolicyRun):
    """TD3+BC offline; online it imitates all rows but the newest."""

    title: ClassVar[str] = "APL (TD3+BC)"

    method: Literal["apl_td3_bc"] = Field("apl_td3_bc", description="The offline-to-online method.")
    apl_td3_bc: AplTd3BcConfig = AplTd3BcConfig()


class AplTd3Bc(Recent, Td3Bc):
    """TD3+BC whose policy is held near rows that are not the newest ones."""

    settings: AplTd3BcConfig

    def policy_penalty(self, batch: Batch, actions: Tensor) -> Tensor:
        return super().policy_penalty(batch, actions) * (1.0 - batch.recent)


ROOM = OffPolicy(
    "apl_td3_bc",
    "APL on TD3+BC: imitation of all rows alike, but for minibatches of the newest ones",
    AplTd3BcRun,
    AplTd3Bc,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
