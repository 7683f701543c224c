"""What the report shows of a dataset."""

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from unio4_lib.data.inspect import describe
from unio4_lib.data.transitions import Transitions
from unio4_lib.report.facts import Facts
from unio4_lib.report.part import Part
from unio4_lib.report.summary import Data

MOST_ROWS = 8192  # evenly spread: the error of a mean over them is about 1%
BINS = 24


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
    """What the summary says of the data, and more."""

    digest: str = ""
    normalized_mean: float | None = None
    returns: Spread | None = None
    lengths: Spread | None = None
    ends: Ends | None = None
    actions: list[ActionColumn] = Field([])
    observations: list[ObservationColumn] = Field([])


def dataset_facts(source: str, transitions: Transitions) -> DatasetFacts:
    """Returns, lengths, ends, actions and observations of a dataset."""
    about = describe(transitions)
    rows = slice(None, None, max(1, transitions.num_transitions // MOST_ROWS))
    actions, observations = transitions.actions[rows], transitions.observations[rows]
    columns = []
    for index, row in enumerate(about["actions"]):
        counts, _ = np.histogram(actions[:, index], bins=BINS, range=(row["low"], row["high"]))
        columns.append(ActionColumn(**row, counts=counts.tolist()))
    statistics = {
        "min": transitions.observations.min(axis=0),
        "max": transitions.observations.max(axis=0),
        "mean": observations.mean(axis=0, dtype=np.float64),
        "std": observations.std(axis=0, dtype=np.float64),
    }
    returns, lengths = transitions.episode_returns(), transitions.episode_lengths()
    return DatasetFacts(
        id=source,
        env_id=about["env_id"],
        transitions=about["transitions"],
        episodes=about["episodes"],
        mean_return=about["returns"]["mean"],
        normalized=about["normalized_mean"],
        digest=about["digest"],
        normalized_mean=about["normalized_mean"],
        returns=Spread(**about["returns"] | {"histogram": histogram(returns)}),
        lengths=Spread(**about["lengths"] | {"histogram": histogram(lengths)}),
        ends=Ends(**about["ends"]),
        actions=columns,
        observations=[
            ObservationColumn(**{name: float(values[index]) for name, values in statistics.items()})
            for index in range(transitions.observation_dim)
        ],
    )


def histogram(values: ArrayLike) -> Histogram:
    """Equal bins."""
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=BINS)
    return Histogram(counts=counts.tolist(), edges=edges.tolist())
