"""CFDG (Huang et al., ICML 2025) on PEX: made rows for a new policy beside the offline one."""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from unio4_lib.methods.cfdg import Cfdg, GuidedConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.methods.pex import Pex, PexConfig
from unio4_lib.settings.offpolicy import BalancedTuneConfig


class CfdgPexConfig(GuidedConfig, PexConfig):
    """The learner."""


class CfdgPexRun(OffPolicyRun):
    """IQL offline, then online a second policy on old, new and made rows."""

    title: ClassVar[str] = "CFDG (PEX)"

    method: Literal["cfdg_pex"] = Field("cfdg_pex", description="The offline-to-online method.")
    finetune: BalancedTuneConfig = BalancedTuneConfig()
    cfdg_pex: CfdgPexConfig = CfdgPexConfig()


ROOM = OffPolicy(
    "cfdg_pex",
    "CFDG on PEX: a third of the rows online are made by a diffusion model that knows old from new ones",
    CfdgPexRun,
    partial(Cfdg, Pex),
    __name__,
    composite=True,
    shown={"critics/value_mean": "value", "critics/return_mean": "return"},
)
METHOD = ROOM.method()
