"""The settings of a tournament: Uni-O4's, and who takes part."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from unio4_lib.errors import InputError
from unio4_lib.methods.tournament.entrants import entrants_of
from unio4_lib.methods.unio4.settings import UniO4Config
from unio4_lib.settings.offpolicy import OffPolicyTrainConfig


class TournamentConfig(UniO4Config):
    """Policies of several methods and clones before one judge, the best improved and fine-tuned."""

    title: ClassVar[str] = "Tournament"

    method: Literal["tournament"] = Field(  # type: ignore[assignment]  # the other one stands on its own
        "tournament", description="The offline-to-online method."
    )
    entrants: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        ("rebrac", "iql"),
        description="Methods that take part beside the clones, each with settings of its own behind a colon: "
        "`iql` or `iql:temperature=10,expectile=0.9`.",
    )
    train: OffPolicyTrainConfig = OffPolicyTrainConfig()

    @model_validator(mode="after")
    def _entrants_can_enter(self) -> Self:
        try:
            entrants_of(self.entrants, self)
        except InputError as error:
            raise ValueError(str(error)) from None
        return self
