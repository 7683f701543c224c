"""APL (Zheng et al., AAAI 2023), here on CQL: careful on all that was seen, not on what is done now."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unio4_lib.learning.learner import BaseLearner
from unio4_lib.learning.loop import Metrics
from unio4_lib.learning.offline_data import Batch
from unio4_lib.learning.replay import Replay
from unio4_lib.methods.cql import Cql, CqlConfig
from unio4_lib.methods.offpolicy import OffPolicy, OffPolicyRun
from unio4_lib.settings.model import StageConfig


class RecentConfig(StageConfig):
    """Minibatches of the newest rows."""

    recent_chance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Chance that a whole minibatch online is of the newest rows, on which nothing holds the "
        "learner back (code: 0.5); 0: never.",
    )
    recent_rows: int = Field(
        20_000,
        ge=1,
        description="How many rows are the newest; it begins when half of them are there (code: 20,000).",
    )


class AplConfig(RecentConfig, CqlConfig):
    """The learner."""

    critics: int = Field(5, ge=2, description="Action values (code: 5).")
    target_critics: int = Field(
        2, ge=1, description="Of them drawn at random for a target, of which the smallest counts (code: 2)."
    )
    policy_follows: Literal["mean", "min"] = Field(
        "mean", description="Whether the policy follows the mean of all values (code) or the smallest."
    )
    calibrated: bool = Field(
        False, description="Values of the policy's actions are not pushed below the return of the data."
    )


class AplRun(OffPolicyRun):
    """Conservative values offline; online they are so on all rows but the newest."""

    title: ClassVar[str] = "APL (CQL)"

    method: Literal["apl"] = Field("apl", description="The offline-to-online method.")
    apl: AplConfig = AplConfig()


class Recent(BaseLearner):
    """Some of the minibatches of any learner are of the newest rows alone; a subclass is bolder on them."""

    settings: RecentConfig

    def prepare(self, replay: Replay, env_steps: int) -> Metrics:
        replay.prefer_recent(self.settings.recent_chance, self.settings.recent_rows)
        return super().prepare(replay, env_steps)


class Apl(Recent, Cql):
    """CQL with several critics, whose values are pushed apart on rows that are not the newest ones."""

    settings: AplConfig

    def gap(self, batch: Batch) -> Tensor:
        return super().gap(batch) * (1.0 - batch.recent)

    def target_value(self, values: Tensor) -> Tensor:
        """The smallest of some [B], drawn anew for each minibatch."""
        count = self.settings.target_critics
        if count >= len(values):
            return super().target_value(values)
        drawn = torch.rand(len(values), generator=self.draws, device=self.draws.device).argsort()
        return super().target_value(values[drawn[:count]])

    def policy_value(self, values: Tensor) -> Tensor:
        return values.mean(dim=0) if self.settings.policy_follows == "mean" else super().policy_value(values)


ROOM = OffPolicy(
    "apl",
    "APL on CQL: careful on all rows alike, but for minibatches of the newest ones",
    AplRun,
    Apl,
    __name__,
    shown={"critics/value_mean": "value", "learner/disagreement": "disagreement"},
)
METHOD = ROOM.method()
