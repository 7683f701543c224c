"""What a run came to, as ``summary.json`` keeps it; fields that older runs do not have are empty."""

from typing import Any

from pydantic import Field

from unio4_lib.report.part import Part, read_part

SCHEMA = 1  # of what is written here; files without it are older, and are read all the same


class Data(Part):
    """The dataset."""

    id: str = ""
    env_id: str = ""
    transitions: int = 0
    episodes: int | None = None
    mean_return: float | None = None
    normalized: float | None = None


class Score(Part):
    """Returns of a policy in its environment."""

    mean_return: float
    stderr: float | None = None
    normalized: float | None = None
    episodes: int = 0
    members: list[float] = Field([])  # where several policies have one name: the mean of each
    acts: str = "mean"  # how, for the figures above
    mean_action: "Score | None" = None
    sampled: "Score | None" = None


class Costs(Part):
    """What a stage took when it was computed."""

    seconds: float = 0.0
    reused: bool = False
    resumed: bool = False
    peak_memory_bytes: int = 0
    artifact_digest: str = ""


class Judged(Part):
    """A policy that the judge looked at, and its estimates by way of acting."""

    name: str
    estimates: dict[str, float]


class TrustSummary(Part):
    """The clones that show whether the models may judge."""

    weighting: str
    recorded: float
    modeled: float
    trusted: bool


class Fitted(Part):
    """What fitted Q evaluation says of the policies that the models judged; it decided nothing."""

    values: list[float]  # of each policy in the portfolio
    spreads: list[float] = Field([])
    rank_correlation: float | None = None  # with the models' estimates
    first: int = 0  # of the portfolio, by these values
    agrees: bool = True  # that the models' choice is no worse than a plain clone


class Gate(Part):
    """What stood before improvement and before every replacement in it."""

    checks: int
    accepted: int
    estimator: str = ""
    confidence: float = 0.5
    margin: float = 0.0
    acts: str = "mean"
    chosen_member: int | None = None  # track that is delivered
    started_from: list[int] = Field([])  # of each track, its policy in the portfolio
    portfolio: list[Judged] = Field([])
    estimates: list[dict[str, float]] = Field([])  # of the tracks, at the final choice
    trust: TrustSummary | None = None
    fqe: Fitted | None = None

    @property
    def trusted(self) -> bool:
        """Whether the models were let judge; nothing recorded can say so for some data."""
        return self.trust is None or self.trust.trusted

    @property
    def first(self) -> Judged | None:
        """What the delivered policy began as."""
        if self.chosen_member is None or not self.started_from:
            return None
        return self.portfolio[self.started_from[self.chosen_member]]


class Place(Part):
    """Where all of it lies, and on what it was computed."""

    folder: str | None = None
    artifact_root: str | None = None
    tracking: str | None = None
    logs: str | None = None
    host: str | None = None
    cpu: str | None = None


class Summary(Part):
    """A whole run."""

    schema_version: int = 0
    run_id: str = "run"
    unio4_version: str = ""
    versions: dict[str, str] = Field({})
    config_digest: str = ""
    method: str | None = None
    seed: int | None = None
    dataset: Data
    stages: dict[str, Costs]
    scores: dict[str, Score]
    online_curve: list[list[float]] | None = None  # environment steps, mean return, standard error
    delivered_at: int | None = None  # environment steps
    dip: float | None = None
    policy_digest: str | None = None
    gate: Gate | None = None
    place: Place | None = None


def read_summary(values: Any, where: str) -> Summary:
    """A summary from JSON; what is none is one line."""
    return read_part(Summary, values, where, "a summary")
