"""What a stage tells of itself, beside what it makes: the log of its training, and its facts.

A stage that knows more than others has a class of its own below ``Facts``, where its method lies; whoever
shows these facts reads them as that class. Files of older releases have no version, and fewer fields.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from unio4_lib.report.part import Part, read_part
from unio4_lib.report.summary import Data, Score

SCHEMA = 1  # of the facts and logs that are written here


class Facts(Part):
    """What is worth showing of a stage; some stages have nothing."""

    schema_version: int = Field(0, exclude=True)  # as it was read

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA, **super().to_json()}


class LogLine(Part):
    """Metrics of one moment."""

    step: int
    values: dict[str, float]


class Log(Facts):
    """The curves of a training, in the order of steps."""

    entries: list[LogLine] = Field([])

    @model_validator(mode="before")
    @classmethod
    def _former(cls, values: Any) -> Any:
        """Before there was a version, a log was the list alone."""
        return {"entries": values} if isinstance(values, list) else values


class Histogram(Part):
    """Counts in bins, and the edges of these."""

    counts: list[int]
    edges: list[float]


class Quantiles(Part):
    """Named in the file by the share of episodes that lies below."""

    least: float = Field(alias="0")
    tenth: float | None = Field(None, alias="0.1")
    quarter: float | None = Field(None, alias="0.25")
    half: float | None = Field(None, alias="0.5")
    three_quarters: float | None = Field(None, alias="0.75")
    nine_tenths: float | None = Field(None, alias="0.9")
    most: float = Field(alias="1")


class Spread(Part):
    """Returns or lengths of all episodes."""

    mean: float
    std: float | None = None
    quantiles: Quantiles
    histogram: Histogram


class Ends(Part):
    """How episodes end."""

    terminals: int
    timeouts: int
    terminal_share_of_episodes: float
    terminal_share_of_rows: float = 0.0


class ActionColumn(Part):
    """One dimension of the actions, and where they lie between its bounds."""

    low: float
    high: float
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    share_at_low: float
    share_at_high: float
    counts: list[int]


class ObservationColumn(Part):
    """One dimension of the observations."""

    min: float
    max: float
    mean: float
    std: float


class DatasetFacts(Facts, Data):
    """Of the prepared data: what the summary says of it, and more."""

    digest: str = ""
    returns: Spread | None = None
    lengths: Spread | None = None
    ends: Ends | None = None
    actions: list[ActionColumn] = Field([])
    observations: list[ObservationColumn] = Field([])


class OfflineFacts(Facts):
    """Of any stage that makes the offline policy."""

    acts: str = "mean"  # how the policy is to act


class OnlineFacts(Facts):
    """Of any fine-tuning."""

    env_steps: int = 0
    delivered_at: int | None = None  # environment steps


class ReportFacts(Facts):
    """Of the last stage."""

    scores: dict[str, Score] = Field({})


def read_log(path: Path) -> Log:
    """The log of an artifact."""
    return read_part(Log, json.loads(path.read_bytes()), str(path), "a log")
