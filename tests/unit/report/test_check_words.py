"""Checks in their words: what each says on either side, and where it says nothing."""

from typing import Any

import pytest
from made_records import checks, fitted, found, gate_of, logged, make_run, plain

from unio4_lib.report.verdicts import Check


def said(check: Check | None) -> tuple[str, str]:
    """Level and words."""
    assert check is not None
    return check.level, plain(check.why)


@pytest.mark.parametrize(
    ("share", "level", "side"),
    [
        (0.35, "bad", "too sure of themselves"),
        (0.50, "watch", "too sure of themselves"),
        (0.68, "good", "about right"),
        (0.85, "watch", "too modest"),
        (0.95, "bad", "too modest"),
    ],
)
def test_models_are_too_sure_or_too_modest(share: float, level: str, side: str) -> None:
    record = make_run()
    assert found(record, "Models know their error") is None
    logged(record, "fit-dynamics", "dynamics/within_one_std", share)
    assert said(found(record, "Models know their error")) == (
        level,
        f"{100 * share:.0f}% of errors lie within one predicted std (68% would be exact): {side}.",
    )


@pytest.mark.parametrize(
    ("correlation", "agrees", "level", "end"),
    [
        (0.9, True, "good", "and neither puts the choice"),
        (0.9, False, "watch", "but the former puts the models' choice"),
        (0.4, True, "watch", "and neither puts the choice"),
        (0.1, False, "bad", "but the former puts the models' choice"),
    ],
)
def test_two_estimates_agree_or_not(correlation: float, agrees: bool, level: str, end: str) -> None:
    record = make_run()
    fitted(record, correlation, agrees=agrees)
    assert said(found(record, "Estimates agree")) == (
        level,
        "Over 8 policies, fitted Q evaluation and the models have a rank correlation of "
        f"{correlation:.2f}, {end} below a plain clone.",
    )


def test_estimates_without_ranks_cannot_agree() -> None:
    record = make_run()
    fitted(record, 0.9)
    fqe = gate_of(record).fqe
    assert fqe is not None
    fqe.rank_correlation = None
    assert found(record, "Estimates agree") is None
    gate_of(record).fqe = None
    assert found(record, "Estimates agree") is None
    record.summary.gate = None
    assert found(record, "Estimates agree") is None


@pytest.mark.parametrize(
    ("online", "level", "why"),
    [
        (300.0, "good", "300 ± 5 after, 200 ± 5 before."),
        (203.0, "watch", "Not beyond the error: 203 ± 5 after, 200 ± 5 before."),
        (150.0, "bad", "It did not: 150 ± 5 after, 200 ± 5 before."),
    ],
)
def test_whether_fine_tuning_helped_is_said_with_both_scores(online: float, level: str, why: str) -> None:
    assert said(found(make_run(online=online), "Fine-tuning helped")) == (level, why)


@pytest.mark.parametrize("missing", ["offline", "online"])
def test_fine_tuning_is_judged_by_two_scores_or_not_at_all(missing: str) -> None:
    record = make_run()
    del record.summary.scores[missing]
    assert "Fine-tuning helped" not in [check.what for check in checks(record)]


@pytest.mark.parametrize(
    ("episodes", "at_bounds", "level"),
    [
        (70, (0.10, 0.02), "good"),
        (70, (0.20, 0.20), "watch"),
        (70, (0.50, 0.20), "bad"),
        (20, (0.10, 0.02), "watch"),  # the worse of both counts, whichever it is
        (20, (0.50, 0.20), "bad"),
        (5, (0.20, 0.20), "bad"),
    ],
)
def test_data_is_as_good_as_the_worse_of_its_size_and_its_actions(
    episodes: int, at_bounds: tuple[float, float], level: str
) -> None:
    record = make_run()
    record.summary.dataset.episodes = episodes
    actions: list[dict[str, Any]] = record.stages["prepare-dataset"].told["actions"]
    for row in actions:
        row["share_at_low"], row["share_at_high"] = at_bounds
    assert said(found(record, "Enough data")) == (
        level,
        f"7,000 transitions in {episodes} episodes; {100 * sum(at_bounds):.0f}% of the actions are at a "
        "bound.",
    )


def test_of_actions_that_nobody_counted_no_share_is_told() -> None:
    record = make_run(with_facts=False)
    assert said(found(record, "Enough data")) == ("good", "7,000 transitions in 70 episodes.")
    record.summary.dataset.episodes = None
    assert found(record, "Enough data") is None
