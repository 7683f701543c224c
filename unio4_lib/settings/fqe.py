"""The section of the second estimate."""

from pydantic import Field

from unio4_lib.settings.model import Hidden, StageConfig


class FqeConfig(StageConfig):
    """Fitted Q evaluation: what policies are worth by values learned from the rows, beside the models."""

    steps: int = Field(0, ge=0, description="Updates; 0: no second estimate (it decides nothing).")
    critics: int = Field(2, ge=1, description="Values of each policy that is judged.")
    hidden: Hidden = Field((128, 128), description="Widths of each.")
    batch_size: int = Field(256, ge=1, description="Rows per update, the same for all.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam step size.")
    polyak: float = Field(0.01, gt=0, le=1, description="Rate of the target networks.")
    monte_carlo_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the updates, the first ones, that fit the returns of the data."
    )
    evaluate_every: int = Field(1_000, ge=1, description="Updates between looks at the estimates.")
