"""EDIS (Liu et al., ICML 2024) on Cal-QL: as on IQL, with fewer made rows."""

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from unio4_lib.methods.cql import Cql, CqlConfig
from unio4_lib.methods.edis import Edis, EdisTuneConfig, PushedConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun


class EdisCqlConfig(PushedConfig, CqlConfig):
    """The learner."""

    made_share: float = Field(
        0.2, ge=0, lt=1, description="Share of made rows in minibatches (released: 0.1-0.5 by task); 0: none."
    )


class EdisCqlRun(OffPolicyRun):
    """Cal-QL offline, then online on new and made rows."""

    title: ClassVar[str] = "EDIS (Cal-QL)"

    method: Literal["edis_cql"] = Field("edis_cql", description="The offline-to-online method.")
    finetune: EdisTuneConfig = EdisTuneConfig()
    edis_cql: EdisCqlConfig = EdisCqlConfig()


ROOM = OffPolicy(
    "edis_cql",
    "EDIS on Cal-QL: online rows and rows of a diffusion model that is led to what the policy would see now",
    EdisCqlRun,
    partial(Edis, Cql),
    __name__,
    shown={"critics/value_mean": "value", "learner/distance": "distance from the data"},
)
METHOD = ROOM.method()
