"""OPT (Shin et al., ICML 2025) on SPOT: as on TD3+BC, with a density that goes on holding the policy."""

from typing import ClassVar, Literal

from pydantic import Field

from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.opt import OptTuneConfig, SecondCritic, SecondCriticConfig
from unio4_lib.methods.spot import Spot, SpotConfig


class OptSpotConfig(SecondCriticConfig, SpotConfig):
    """The learner."""


class OptSpotRun(OffPolicyRun):
    """SPOT offline; online a second critic takes over, and less and less of a hold."""

    title: ClassVar[str] = "OPT (SPOT)"

    method: Literal["opt_spot"] = Field("opt_spot", description="The offline-to-online method.")
    finetune: OptTuneConfig = OptTuneConfig()
    opt_spot: OptSpotConfig = OptSpotConfig()


class OptSpot(SecondCritic, Spot):
    """On SPOT."""

    parts: ClassVar[tuple[str, ...]] = (*SecondCritic.parts, "density")
    settings: OptSpotConfig


ROOM = OffPolicy(
    "opt_spot",
    "OPT on SPOT: a second critic, prepared for new rows before it counts, and more of it with time",
    OptSpotRun,
    OptSpot,
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
