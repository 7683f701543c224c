"""Sections that all off-policy methods share."""

from typing import Literal, Self

from pydantic import Field, model_validator

from unio4_lib.settings.model import StageConfig

Mixing = Literal["union", "balanced", "online"]
MIXING = "Rows of a minibatch: of data and experience alike, half of each, or new ones only."


class OffPolicyTrainConfig(StageConfig):
    """Offline training of an off-policy learner."""

    steps: int = Field(50_000, ge=1, description="Updates (papers: 1,000,000).")
    batch_size: int = Field(256, ge=1, description="Rows per update (papers: 256).")
    discount: float = Field(0.99, ge=0, lt=1, description="Discount factor (papers: 0.99).")
    monte_carlo_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of the updates, the first ones, that fit the returns of the data (papers: 0).",
    )
    evaluate_every: int = Field(2_500, ge=1, description="Updates between looks at values and losses.")


class OffPolicyTuneConfig(StageConfig):
    """Fine-tuning of an off-policy learner in its environment."""

    env_steps: int = Field(100_000, ge=1, description="Environment steps (papers: 100,000 to 1,000,000).")
    num_envs: int = Field(4, ge=1, description="Environments stepped together (papers: 1).")
    updates_per_step: float = Field(1.0, gt=0, description="Updates for each environment step (papers: 1).")
    warmup_steps: int = Field(
        2_000,
        ge=0,
        description="First environment steps, collected before anything is updated (papers: 0-5,000).",
    )
    mixing: Mixing = Field("union", description=MIXING)
    replay_rows: int = Field(1_000_000, ge=1, description="Newest rows that are remembered.")
    round_steps: int = Field(1_000, ge=1, description="Environment steps between entries of the log.")
    evaluate_every: int = Field(5_000, ge=1, description="Environment steps between evaluations.")
    evaluate_episodes: int = Field(10, ge=1, description="Episodes per evaluation on the curve.")
    deliver: Literal["best", "last"] = Field(
        "best", description="Hand over the policy of the best evaluation, or the last one (papers)."
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if self.warmup_steps >= self.env_steps:
            raise ValueError(
                f"finetune.warmup_steps is {self.warmup_steps}; expected less than finetune.env_steps, "
                f"which is {self.env_steps}"
            )
        return self


class BalancedTuneConfig(OffPolicyTuneConfig):
    """Fine-tuning of an off-policy learner in its environment, half of each minibatch old rows."""

    mixing: Mixing = Field("balanced", description=MIXING)
