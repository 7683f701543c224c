"""Aggregates against brute force."""

import itertools
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from unio4_lib.report.aggregate import (
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    performance_profile,
    rank_correlation,
)


@pytest.mark.parametrize("n", [4, 8, 40])
def test_interquartile_mean_is_the_trimmed_mean_where_quarters_are_whole(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    assert float(interquartile_mean(scores)) == pytest.approx(stats.trim_mean(scores, 0.25))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7, 11])
def test_interquartile_mean_counts_edges_in_part(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    # Every score four times: then the quarters are whole, and the middle half is the same half.
    assert float(interquartile_mean(scores)) == pytest.approx(stats.trim_mean(np.repeat(scores, 4), 0.25))


def test_interquartile_mean_of_each_column() -> None:
    table = np.random.default_rng(0).normal(size=(7, 3))
    columns = [float(interquartile_mean(table[:, column])) for column in range(3)]
    assert interquartile_mean(table, axis=0).tolist() == pytest.approx(columns)


def test_one_broken_run_hardly_moves_it() -> None:
    scores = [10.0, 11.0, 12.0, 13.0]
    assert float(interquartile_mean([-1e9, *scores])) > 9.0


def test_no_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        interquartile_mean([])
    with pytest.raises(ValueError, match="at least one"):
        performance_profile([], [0.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval([[1.0]], level=1.0)


def test_bootstrap_interval_against_all_resamples() -> None:
    scores = [1.0, 2.3, 4.1, 6.2, 9.7]
    every = interquartile_mean(list(itertools.product(scores, repeat=5)))
    low, high = np.quantile(every, [0.05, 0.95])
    assert bootstrap_interval([scores], level=0.9) == pytest.approx((low, high), abs=0.3)


def test_bootstrap_resamples_within_tasks_only() -> None:
    # Each task's runs agree: whatever is drawn, the mean over tasks stays; pooling would spread.
    assert bootstrap_interval([[0.0] * 6, [100.0] * 6]) == (50.0, 50.0)


@pytest.mark.parametrize("few", [[1.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
def test_few_runs_of_a_task_have_no_bootstrap_interval(few: list[float]) -> None:
    many = [float(number) for number in range(9)]
    assert bootstrap_interval([few]) is None
    assert bootstrap_interval([many, few]) is None
    assert bootstrap_interval([many]) is not None


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_of_a_mean_is_students(count: int) -> None:
    scores = list(np.random.default_rng(count).normal(size=count))
    wanted = stats.t.interval(0.95, count - 1, loc=np.mean(scores), scale=stats.sem(scores))
    assert mean_interval(scores) == pytest.approx(wanted)
    assert mean_interval(scores[:1]) is None


def test_bootstrap_is_seeded() -> None:
    scores = [list(np.random.default_rng(3).normal(size=9))]
    assert bootstrap_interval(scores, seed=5) == bootstrap_interval(scores, seed=5)


def test_performance_profile_counts_what_is_above() -> None:
    scores, thresholds = np.random.default_rng(1).integers(0, 9, size=30), np.arange(-1.0, 10.0, 0.5)
    wanted = [fmean(float(score > threshold) for score in scores) for threshold in thresholds]
    assert performance_profile(scores, thresholds).tolist() == pytest.approx(wanted)


def test_rank_correlation_is_spearmans() -> None:
    generator = np.random.default_rng(2)
    for _ in range(20):
        left, right = generator.integers(0, 6, size=(2, 12))  # with ties
        assert rank_correlation(left, right) == pytest.approx(stats.spearmanr(left, right)[0])


@pytest.mark.parametrize("pair", [([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([], [])])
def test_rank_correlation_of_nothing_is_none(pair: tuple[list[float], list[float]]) -> None:
    assert rank_correlation(*pair) is None
