"""CFDG (Huang et al., ICML 2025) on APL: made rows are old or recent ones, as those they are like."""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from unio4_lib.methods.apl import Apl, AplConfig
from unio4_lib.methods.cfdg import Cfdg, GuidedConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun


class CfdgAplConfig(GuidedConfig, AplConfig):
    """The learner."""


class CfdgAplRun(OffPolicyRun):
    """Conservative values offline, then online on all rows or the newest, and made ones of their kind."""

    title: ClassVar[str] = "CFDG (APL)"

    method: Literal["cfdg_apl"] = Field("cfdg_apl", description="The offline-to-online method.")
    cfdg_apl: CfdgAplConfig = CfdgAplConfig()


ROOM = OffPolicy(
    "cfdg_apl",
    "CFDG on APL: a third of the rows online are made by a diffusion model that knows old from new ones",
    CfdgAplRun,
    partial(Cfdg, Apl),
    __name__,
    shown={"critics/value_mean": "value", "learner/disagreement": "disagreement"},
)
METHOD = ROOM.method()
