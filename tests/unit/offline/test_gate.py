"""The gate: how often luck gets through, and that nothing worse ever does."""

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from unio4_lib.config import ImproveConfig
from unio4_lib.offline.gate import decide, student_quantile

RULES = ["mean", "lower-bound", "margin"]
PAIRS = 1000


def make_config(rule: Any = "lower-bound", **values: Any) -> ImproveConfig:
    return ImproveConfig(rule=rule, **{"confidence": 0.95, **values})


def starts_and_noise(starts: int, seed: int, pairs: int = PAIRS) -> tuple[Tensor, Tensor, Tensor]:
    """What a start is worth to both policies of a pair [P, S], and each policy's own noise."""
    g = torch.Generator().manual_seed(seed)
    shared, left, right = torch.randn(3, pairs, starts, generator=g, dtype=torch.float64)
    return 1000 + 300 * shared, 50 * left, 50 * right


@pytest.mark.parametrize("starts", [8, 65, 200])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_equal_policies_pass_as_often_as_the_confidence_allows(starts: int, confidence: float) -> None:
    """20,000 pairs of equal policies: the rate is the level within three standard errors."""
    level, pairs = 1 - confidence, 20_000
    shared, left, right = starts_and_noise(starts, seed=1, pairs=pairs)
    rate = decide(shared + left, shared + right, make_config(confidence=confidence)).accepted.double().mean()
    assert abs(float(rate) - level) < 3 * math.sqrt(level * (1 - level) / pairs)


def test_of_a_thousand_equal_pairs_at_most_fifty_pass() -> None:
    """The default rule. At 95 % fifty are expected, so this is one draw (42 seen); at 97 % any draw holds."""
    shared, left, right = starts_and_noise(65, seed=2)
    assert int(decide(shared + left, shared + right, ImproveConfig()).accepted.sum()) <= 50
    mean_rule = decide(shared + left, shared + right, make_config("mean"))
    assert 400 < int(mean_rule.accepted.sum()) < 600  # the same draws: half of all luck gets through
    for seed in range(10):
        shared, left, right = starts_and_noise(65, seed)
        strict = decide(shared + left, shared + right, make_config(confidence=0.97))
        assert int(strict.accepted.sum()) <= 50


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_returns_with_two_modes_pass_no_more_often(share: float) -> None:
    """Episodes that either fall (900) or last (3200), each policy on its own: far from normal."""
    g = torch.Generator().manual_seed(0)
    left, right = (torch.rand(2, 20_000, 65, generator=g) < share).double() * 2300 + 900
    rate = float(decide(left, right, make_config()).accepted.double().mean())
    # Symmetric differences: even far from normal the level holds but for 0.5 % (three standard errors).
    assert rate < 0.055
    assert rate > 0.03  # and the rule still decides


def test_rare_catastrophes_of_both_policies_pass_no_more_often() -> None:
    """Heavy tails: one rollout in fifty loses 100 times the usual noise, for either policy."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 20_000, 65, generator=g) * 10
    losses = (torch.rand(2, 20_000, 65, generator=g) < 0.02) * 1000.0
    left, right = (noise - losses).double()
    assert float(decide(left, right, make_config()).accepted.double().mean()) < 0.055


@pytest.mark.parametrize("rule", RULES)
def test_clearly_worse_candidates_never_pass(rule: Any) -> None:
    """Worse by 60, which is 0.85 of the pairs' noise of 71 and nearly seven of its standard errors."""
    shared, left, right = starts_and_noise(65, seed=3)
    assert not decide(shared + left - 60, shared + right, make_config(rule)).accepted.any()


@pytest.mark.parametrize("rule", RULES)
def test_clearly_better_candidates_pass(rule: Any) -> None:
    shared, left, right = starts_and_noise(65, seed=4)
    decision = decide(shared + left + 120, shared + right, make_config(rule, margin=0.02))
    assert decision.accepted.all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("worth", [0.0, -1000.0, 1000.0])
def test_equal_estimates_never_pass(rule: Any, worth: float) -> None:
    values = torch.full((3, 64), worth) + torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    decision = decide(values, values.clone(), make_config(rule, margin=0.0))
    assert not decision.accepted.any()
    assert torch.equal(decision.difference, torch.zeros(3))


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_a_number_never_passes(rule: Any) -> None:
    values = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    broken = values + 100
    broken[0, 5] = torch.nan
    assert decide(broken, values, make_config(rule)).accepted.tolist() == [False, True]


@pytest.mark.parametrize(("current", "gain", "accepted"), [
    (100.0, 5.1, True), (100.0, 4.9, False), (-100.0, 5.1, True), (-100.0, 4.9, False), (0.0, 0.001, True)
])  # fmt: skip
def test_the_margin_is_a_share_of_the_current_estimates_size(
    current: float, gain: float, accepted: bool
) -> None:
    now = torch.tensor([[current - 10, current + 10]], dtype=torch.float64)
    decision = decide(now + gain, now, make_config("margin", margin=0.05))
    assert decision.accepted.tolist() == [accepted]


def test_the_margin_itself_does_not_pass() -> None:
    now = torch.full((1, 4), 64.0)
    assert not decide(now + 16.0, now, make_config("margin", margin=0.25)).accepted.any()


def test_a_decision_is_the_one_sided_paired_test_of_scipy() -> None:
    """Neither the unpaired test (which sees nothing here) nor a two-sided one."""
    shared, left, right = starts_and_noise(40, seed=5)
    candidate, current = shared + left + 15, shared + right
    decision = decide(candidate, current, make_config(confidence=0.9))
    by_scipy = stats.ttest_rel(candidate.numpy(), current.numpy(), axis=1, alternative="greater")
    clear = abs(by_scipy.pvalue - 0.1) > 1e-4  # where three digits of the quantile decide
    assert (decision.accepted.numpy() == (by_scipy.pvalue < 0.1))[clear].all()
    assert 0.2 < float(decision.accepted.double().mean()) < 0.95
    torch.testing.assert_close(decision.difference, (candidate - current).mean(dim=1))
    torch.testing.assert_close(decision.difference, decision.candidate - decision.current)
    torch.testing.assert_close(
        decision.stderr, torch.as_tensor(stats.sem((candidate - current).numpy(), axis=1))
    )


def test_members_are_judged_on_their_own() -> None:
    g = torch.Generator().manual_seed(6)
    current = torch.randn(4, 64, generator=g)
    candidate = current + torch.tensor([[1.0], [-1.0], [0.0], [5.0]])
    for rule in RULES:
        assert decide(candidate, current, make_config(rule)).accepted.tolist() == [True, False, False, True]


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.95, 0.97, 0.99])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 63, 64, 500])
def test_student_quantile_is_that_of_scipy(degrees: int, probability: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees))


def with_model_bias(models: int, spread: float, pairs: int = 20_000) -> tuple[Tensor, Tensor]:
    """Equal policies; each model favors one of them by its own error, shared by its 16 starts."""
    g = torch.Generator().manual_seed(7)
    current = torch.randn(pairs, models, 16, generator=g, dtype=torch.float64)
    bias = spread * torch.randn(pairs, models, 1, generator=g, dtype=torch.float64)
    noise = torch.randn(pairs, models, 16, generator=g, dtype=torch.float64)
    return (current + bias + noise).flatten(1), current.flatten(1)


@pytest.mark.parametrize("models", [2, 4, 5])
def test_errors_that_starts_share_do_not_pass_for_certainty(models: int) -> None:
    """Over starts alone such luck passes far too often; over models as often as the level says."""
    candidate, current = with_model_bias(models, spread=2.0)
    by_starts = decide(candidate, current, make_config()).accepted.double().mean()
    by_models = decide(candidate, current, make_config(), models=models).accepted.double().mean()
    assert float(by_starts) > 0.2
    assert abs(float(by_models) - 0.05) < 3 * math.sqrt(0.05 * 0.95 / len(candidate))


def test_a_gain_in_two_of_four_models_is_refused_and_a_smaller_one_in_all_accepted() -> None:
    """Seen on Hopper: two models invent falls of the clones, and any change mends them there."""
    noise = torch.randn(4, 16, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    current = torch.zeros(1, 64, dtype=torch.float64)
    some = (torch.tensor([0.0, 110.0, 0.0, 50.0])[:, None] + noise).view(1, 64)
    every = (torch.tensor([20.0, 25.0, 15.0, 20.0])[:, None] + noise).view(1, 64)
    assert decide(some, current, make_config()).accepted.all()  # 64 starts seem to prove it
    assert not decide(some, current, make_config(), models=4).accepted.any()
    assert decide(every, current, make_config(), models=4).accepted.all()
