"""Scores of several runs as one statement: interquartile mean, intervals, performance profile.

As Agarwal et al. (2021, arXiv 2108.13264) recommend for few runs: the interquartile mean is less bent by
one lucky or broken run than the mean and wastes less than the median; its error comes from resampling.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unio4_lib.student import student_quantile

RESAMPLES = 2000
FEWEST_RUNS = 5  # of a task, from which resampling says how runs spread: of two it has but three values


def interquartile_mean(scores: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Mean of the middle half along an axis of n scores.

    Where n is not a multiple of four, the two scores at the edges of the middle half count in part, so
    that exactly half of the weight is used: [0, 1, 2] -> (0.25 * 0 + 1 + 0.25 * 2) / 1.5 = 1.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=axis)
    n = ordered.shape[axis]
    if n == 0:
        raise ValueError("interquartile mean of no scores; expected at least one")
    ranks = np.arange(n)
    # Score i occupies [i, i + 1] on a line of length n; what lies in [n / 4, 3 n / 4] counts.
    weights = np.clip(np.minimum(ranks + 1, 0.75 * n) - np.maximum(ranks, 0.25 * n), 0.0, None)
    shape = [1] * ordered.ndim
    shape[axis] = n
    return np.asarray((ordered * weights.reshape(shape)).sum(axis=axis) / weights.sum())


def bootstrap_interval(
    scores: Sequence[ArrayLike], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the interquartile mean over all tasks' scores; None where a task has few runs.

    ``scores`` has one list of runs for each task; runs are resampled within their task, because a run of
    one task says nothing about how another task's runs spread. Resamples of a few runs spread far too little.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}, expected a number between 0 and 1")
    if any(np.size(task) < FEWEST_RUNS for task in scores):
        return None
    generator = np.random.default_rng(seed)
    draws = []
    for task in scores:
        values = np.asarray(task, np.float64)
        draws.append(values[generator.integers(len(values), size=(RESAMPLES, len(values)))])
    means = interquartile_mean(np.concatenate(draws, axis=1))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(scores: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of the mean by Student's t, which is wide where runs are few; None of a single run."""
    count = len(scores)
    if count < 2:
        return None
    mean = float(np.mean(scores))
    reach = student_quantile(0.975, count - 1) * float(np.std(scores, ddof=1)) / count**0.5
    return mean - reach, mean + reach


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of runs that score higher than each threshold: [thresholds]."""
    values = np.sort(np.asarray(scores, np.float64).reshape(-1))
    if len(values) == 0:
        raise ValueError("performance profile of no scores; expected at least one")
    above = len(values) - np.searchsorted(values, np.asarray(thresholds, np.float64), side="right")
    return np.asarray(above / len(values))


def rank_correlation(left: ArrayLike, right: ArrayLike) -> float | None:
    """Spearman's correlation, ties at their mean rank; None where one side is constant or too short."""
    a, b = (_ranks(np.asarray(values, np.float64)) for values in (left, right))
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """How often a run of ours is above one of theirs, over all pairs; a draw is half a win."""
    left, right = np.asarray(ours, np.float64)[:, None], np.asarray(theirs, np.float64)[None, :]
    return float(np.mean((left > right) + 0.5 * (left == right)))


def improvement_interval(
    ours: ArrayLike, theirs: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of that probability, runs of both resampled; None where either has few."""
    left, right = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if min(len(left), len(right)) < FEWEST_RUNS:
        return None
    generator = np.random.default_rng(seed)
    draws = [
        probability_of_improvement(
            left[generator.integers(len(left), size=len(left))],
            right[generator.integers(len(right), size=len(right))],
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def area_under_curve(steps: ArrayLike, returns: ArrayLike) -> float:
    """Mean return over the steps of a curve, between its points along straight lines."""
    places, values = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
    return float(np.trapezoid(values, places) / (places[-1] - places[0]))
