"""What the report shows of a dataset; apart from ``facts``, because this needs NumPy."""

import numpy as np
from numpy.typing import ArrayLike

from unio4_lib.data import numbers
from unio4_lib.data.inspect import describe
from unio4_lib.data.transitions import Transitions
from unio4_lib.report.facts import (
    ActionColumn,
    DatasetFacts,
    Ends,
    Histogram,
    ObservationColumn,
    Spread,
)

MOST_ROWS = 8192  # evenly spread: the error of a mean over them is about 1%
BINS = 24


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
    counts, edges = numbers.histogram(values, BINS)
    return Histogram(counts=counts.tolist(), edges=edges.tolist())
