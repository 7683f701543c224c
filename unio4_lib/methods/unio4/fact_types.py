"""What the stages of Uni-O4 tell of themselves, as ``facts.json`` keeps it."""

from pydantic import Field

from unio4_lib.report.facts import Facts, Histogram, OnlineFacts, ReportFacts
from unio4_lib.report.part import Part
from unio4_lib.report.summary import Gate


class CloneFit(Part):
    """One clone on held-out rows."""

    log_likelihood: float
    stderr: float
    std: float


class BehaviorFacts(Facts):
    """How well clones fit, and how far they differ."""

    holdout_rows: int = 0
    members: list[CloneFit] = Field([])
    divergence: list[list[float]] = Field([])  # of each from each, in nats
    overlap: list[float] = Field([])  # of each with the others


class Bin(Part):
    """States of about the same value, and the returns that followed."""

    value: float
    returned: float = Field(alias="return")
    stderr: float = 0.0
    std: float
    rows: int


class CriticsFacts(Facts):
    """Values against returns."""

    bins: list[Bin] = Field([])
    correlation: float | None = None
    bias: float = 0.0
    advantage_histogram: Histogram | None = None
    positive_advantages: float | None = None  # their share


class StepErrors(Part):
    """Errors over steps ahead, in standard deviations."""

    starts: int
    steps: list[int]
    members: list[list[float]]
    no_change: list[float]  # of the guess that nothing changes


class DynamicsFacts(Facts):
    """Errors of the models, and whether these know them."""

    holdout_rows: int = 0
    members: list[float] = Field([])  # squared errors of one step
    dimensions: list[float] = Field([])  # the last one is the reward
    calibration: list[list[float]] = Field([])  # level of an interval, share of errors within
    k_step: StepErrors | None = None  # none where all episodes are too short


class GateFacts(Facts, Gate):
    """What the summary says of the gate, where it is told first."""


class TuningFacts(OnlineFacts):
    """What became of the learner on its way."""

    falls: list[int] = Field([])  # environment steps at which it went back
    worst_look: float | None = None  # as a share of the first
    worst_running_return: float | None = None  # likewise


class Point(Part):
    """A policy by its estimate and its true return."""

    label: str
    estimate: float
    truth: float
    stderr: float


class Ranking(Part):
    """How well estimates order policies."""

    points: list[Point]
    rank_correlation: float | None = None
    fqe_rank_correlation: float | None = None


class JudgeFacts(ReportFacts):
    """Whether the judge was right."""

    ope: Ranking | None = None
