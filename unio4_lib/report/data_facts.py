"""What the report shows of a dataset; apart from ``facts``, because it needs no PyTorch."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from unio4_lib.data.inspect import describe
from unio4_lib.data.transitions import Transitions

MOST_ROWS = 8192  # evenly spread: the error of a mean over them is about 1%
BINS = 24


def dataset_facts(transitions: Transitions) -> dict[str, Any]:
    """Returns, lengths, ends, actions and observations of a dataset."""
    about = describe(transitions)
    names = ("transitions", "episodes", "returns", "lengths", "ends", "normalized_mean", "digest")
    facts = {name: about[name] for name in names}
    facts["returns"]["histogram"] = histogram(transitions.episode_returns())
    facts["lengths"]["histogram"] = histogram(transitions.episode_lengths())
    rows = slice(None, None, max(1, transitions.num_transitions // MOST_ROWS))
    actions, observations = transitions.actions[rows], transitions.observations[rows]
    facts["actions"] = [
        {
            **row,
            "counts": np.histogram(actions[:, index], bins=BINS, range=(row["low"], row["high"]))[0].tolist(),
        }
        for index, row in enumerate(about["actions"])
    ]
    statistics = {
        "min": transitions.observations.min(axis=0),
        "max": transitions.observations.max(axis=0),
        "mean": observations.mean(axis=0, dtype=np.float64),
        "std": observations.std(axis=0, dtype=np.float64),
    }
    facts["observations"] = [
        {name: float(values[index]) for name, values in statistics.items()}
        for index in range(transitions.observation_dim)
    ]
    return facts


def histogram(values: ArrayLike) -> dict[str, Any]:
    """Counts and edges of equal bins."""
    counts, edges = np.histogram(np.asarray(values, np.float64), bins=BINS)
    return {"counts": counts.tolist(), "edges": edges.tolist()}
