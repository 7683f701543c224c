"""Methods beside each other on one dataset: how probably one is better, what it cost, which to take."""

import pytest
from made_records import make_run

from unio4_lib.report.aggregate import area_under_curve, improvement_interval, probability_of_improvement
from unio4_lib.report.leaderboard import Entry, markdown
from unio4_lib.report.standing import advice, cost_of, duels


def test_probability_of_improvement_by_hand() -> None:
    """Of six pairs: 2>1, 5>1, 5>3 and 5>... are wins, 2 against 2 is a draw."""
    assert probability_of_improvement([2.0, 5.0], [1.0, 2.0, 3.0]) == pytest.approx((1 + 0.5 + 0 + 3) / 6)
    assert probability_of_improvement([1.0], [2.0]) == 0.0


def test_its_interval_waits_for_runs_and_holds_it() -> None:
    assert improvement_interval([1.0, 2.0, 3.0, 4.0], [0.0] * 9) is None
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 2.5, 2.6, 2.7, 9.0]
    found = improvement_interval(ours, theirs)
    assert found is not None
    assert found[0] < probability_of_improvement(ours, theirs) < found[1]
    assert improvement_interval([5.0] * 5, [1.0] * 5) == (1.0, 1.0)


def test_the_area_weighs_by_steps() -> None:
    """A line from 0 to 10 over one step, then 10 for three: (5 + 30) / 4."""
    assert area_under_curve([0, 1, 4], [0.0, 10.0, 10.0]) == pytest.approx(35 / 4)


def test_costs_are_means_over_runs() -> None:
    curves = ([[0, 200.0, 1.0], [30_000, 100.0, 1.0], [300_000, 100.0, 1.0]], [[0, 200.0, 1.0]])
    cost = cost_of([make_run(curve=curve) for curve in curves])
    assert cost.dip == 0.5
    assert cost.area == pytest.approx((150 * 30_000 + 100 * 270_000) / 300_000)
    assert cost.env_steps == 150_000
    assert cost.seconds == 10 + 20 + 30 + 40 + 50


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({"a": [1.0, 2.0, 3.0], "b": [10.0, 11.0, 12.0]}, "Take b: b has the highest mean, 11;"),
        ({"a": [1.0, 5.0, 3.0], "b": [4.0, 4.0, 4.5]}, "No method stands out: b has"),
        ({"a": [1.0, 2.0, 4.2], "b": [4.0, 4.0, 4.5]}, "Take b, probably: b has"),
        ({"a": [1.0], "b": [4.0, 5.0, 6.0], "c": [0.0]}, "Take b, but it is a guess: "),
    ],
)
def test_advice_says_how_sure_it_is(scores: dict[str, list[float]], says: str) -> None:
    assert advice(scores).startswith(says)


def test_the_leaderboard_compares_methods_of_one_dataset_only() -> None:
    entries = [
        *(Entry("d", seed, "m", make_run(online=100.0 + seed)) for seed in range(3)),
        *(Entry("d", seed, "n", make_run(online=200.0 + seed)) for seed in range(3)),
        Entry("e", 0, "m", make_run(online=900.0)),
    ]
    text = markdown(entries)
    assert (
        "d: Take n: n has the highest mean, 201; a run of it is above one of m, the closest, in 100%" in text
    )
    assert "| m |  | 0% |" in text and "| n | 100% |  |" in text
    assert "e: " not in text
    assert "| d | n | 0.75 | " in text  # dip of the made curve: 150 of 200
    assert duels({"x": [1.0], "y": [1.0]})[2] == "| x |  | 50% |"
