"""The gate: how often luck gets through, and that nothing worse ever does."""

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from unio4_lib.judging.gate import Decision, decide, student_quantile
from unio4_lib.settings.model import ImproveConfig

PAIRS = 1000
PAPER = {"confidence": 0.5, "margin": 0.0}  # a higher mean passes


def make_config(**values: Any) -> ImproveConfig:
    return ImproveConfig(**{"confidence": 0.95, "margin": 0.0, **values})


def judge(candidate: Tensor, current: Tensor, config: ImproveConfig) -> Decision:
    """A decision on estimates [E, S] of one way of acting."""
    return decide(candidate[None], current[None], config)


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
    rate = judge(shared + left, shared + right, make_config(confidence=confidence)).accepted.double().mean()
    assert abs(float(rate) - level) < 3 * math.sqrt(level * (1 - level) / pairs)


def test_of_a_thousand_equal_pairs_at_most_fifty_pass() -> None:
    """At 95 % fifty are expected, so this is one draw (42 seen); at 97 % any draw holds."""
    shared, left, right = starts_and_noise(65, seed=2)
    assert int(judge(shared + left, shared + right, make_config()).accepted.sum()) <= 50
    paper_rule = judge(shared + left, shared + right, make_config(**PAPER))
    assert 400 < int(paper_rule.accepted.sum()) < 600  # the same draws: half of all luck gets through
    for seed in range(10):
        shared, left, right = starts_and_noise(65, seed)
        strict = judge(shared + left, shared + right, make_config(confidence=0.97))
        assert int(strict.accepted.sum()) <= 50


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_returns_with_two_modes_pass_no_more_often(share: float) -> None:
    """Episodes that either fall (900) or last (3200), each policy on its own: far from normal."""
    g = torch.Generator().manual_seed(0)
    left, right = (torch.rand(2, 20_000, 65, generator=g) < share).double() * 2300 + 900
    rate = float(judge(left, right, make_config()).accepted.double().mean())
    # Symmetric differences: even far from normal the level holds but for 0.5 % (three standard errors).
    assert rate < 0.055
    assert rate > 0.03  # and the rule still decides


def test_rare_catastrophes_of_both_policies_pass_no_more_often() -> None:
    """Heavy tails: one rollout in fifty loses 100 times the usual noise, for either policy."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 20_000, 65, generator=g) * 10
    losses = (torch.rand(2, 20_000, 65, generator=g) < 0.02) * 1000.0
    left, right = (noise - losses).double()
    assert float(judge(left, right, make_config()).accepted.double().mean()) < 0.055


@pytest.mark.parametrize("rule", [{}, PAPER, {"margin": 0.02}])
def test_clearly_worse_candidates_never_pass(rule: dict[str, Any]) -> None:
    """Worse by 60, which is 0.85 of the pairs' noise of 71 and nearly seven of its standard errors."""
    shared, left, right = starts_and_noise(65, seed=3)
    assert not judge(shared + left - 60, shared + right, make_config(**rule)).accepted.any()


@pytest.mark.parametrize("rule", [{}, PAPER, {"margin": 0.02}])
def test_clearly_better_candidates_pass(rule: dict[str, Any]) -> None:
    shared, left, right = starts_and_noise(65, seed=4)
    decision = judge(shared + left + 120, shared + right, make_config(**rule))
    assert decision.accepted.all()


@pytest.mark.parametrize("rule", [{}, PAPER, {"margin": 0.02}])
@pytest.mark.parametrize("worth", [0.0, -1000.0, 1000.0])
def test_equal_estimates_never_pass(rule: dict[str, Any], worth: float) -> None:
    values = torch.full((3, 64), worth) + torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    decision = judge(values, values.clone(), make_config(**rule))
    assert not decision.accepted.any()
    assert torch.equal(decision.difference, torch.zeros(3))


@pytest.mark.parametrize("rule", [{}, PAPER, {"margin": 0.02}])
def test_what_is_not_a_number_never_passes(rule: dict[str, Any]) -> None:
    values = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    broken = values + 100
    broken[0, 5] = torch.nan
    assert judge(broken, values, make_config(**rule)).accepted.tolist() == [False, True]


@pytest.mark.parametrize(("current", "gain", "accepted"), [
    (100.0, 5.1, True), (100.0, 4.9, False), (-100.0, 5.1, True), (-100.0, 4.9, False), (0.0, 0.001, True)
])  # fmt: skip
def test_the_margin_is_a_share_of_the_current_estimates_size(
    current: float, gain: float, accepted: bool
) -> None:
    now = torch.full((1, 4), current, dtype=torch.float64)
    decision = judge(now + gain, now, make_config(margin=0.05))
    assert decision.refusals == [None if accepted else "too small"]


def test_each_test_refuses_by_its_own_name_and_the_first_one_speaks() -> None:
    """Two ways of acting, four starts, currents of 100 by mean and 200 by samples; a margin of 0.1."""
    spread = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=torch.float64)
    current = torch.tensor([100.0, 200.0], dtype=torch.float64).view(2, 1, 1) + torch.zeros(2, 8, 4)

    def gains(mean: float, sampled: float, noise: float = 1.0) -> Tensor:
        return torch.tensor([mean, sampled], dtype=torch.float64)[:, None] + noise * spread

    candidate = current + torch.stack(
        [
            gains(20, 20),
            gains(20, 20, noise=20.0),  # a standard error of 26
            gains(14.9, 14.9),  # 0.1 of the two currents' mean is 15
            gains(15.1, 15.1),
            gains(-10.1, 60.0),  # pays with more than a tenth of the mean action's 100
            gains(-9.9, 60.0),
            gains(60.0, -20.1),  # or of the samples' 200
            gains(-60.0, -60.0),
        ],
        dim=1,
    )
    decision = decide(candidate, current, make_config(confidence=0.9, margin=0.1))
    assert decision.refusals == [
        None, "not sure", "too small", None, "worse in one way of acting", None,
        "worse in one way of acting", "not sure",
    ]  # fmt: skip
    assert decision.accepted.tolist() == [refusal is None for refusal in decision.refusals]
    torch.testing.assert_close(decision.candidate[:, 0], torch.tensor([120.0, 220.0]).double())
    torch.testing.assert_close(decision.current, current.mean(dim=2))
    assert float(decision.difference[4]) == pytest.approx((60.0 - 10.1) / 2)
    by_scipy = stats.sem((candidate - current).mean(dim=0).numpy(), axis=1)
    torch.testing.assert_close(decision.stderr, torch.as_tensor(by_scipy))


def test_half_of_confidence_and_no_margin_is_the_papers_rule() -> None:
    """A higher mean passes, however noisy, and nothing else is asked."""
    shared, left, right = starts_and_noise(65, seed=9)
    decision = judge(shared + left, shared + right, make_config(**PAPER))
    assert torch.equal(decision.accepted, left.mean(dim=1) > right.mean(dim=1))


def test_a_decision_is_the_one_sided_paired_test_of_scipy() -> None:
    """Neither the unpaired test (which sees nothing here) nor a two-sided one."""
    shared, left, right = starts_and_noise(40, seed=5)
    candidate, current = shared + left + 15, shared + right
    decision = judge(candidate, current, make_config(confidence=0.9))
    by_scipy = stats.ttest_rel(candidate.numpy(), current.numpy(), axis=1, alternative="greater")
    clear = abs(by_scipy.pvalue - 0.1) > 1e-4  # where three digits of the quantile decide
    assert (decision.accepted.numpy() == (by_scipy.pvalue < 0.1))[clear].all()
    assert 0.2 < float(decision.accepted.double().mean()) < 0.95
    torch.testing.assert_close(decision.difference, (candidate - current).mean(dim=1))
    torch.testing.assert_close(decision.difference, (decision.candidate - decision.current)[0])
    torch.testing.assert_close(
        decision.stderr, torch.as_tensor(stats.sem((candidate - current).numpy(), axis=1))
    )


def test_members_are_judged_on_their_own() -> None:
    g = torch.Generator().manual_seed(6)
    current = torch.randn(4, 64, generator=g)
    candidate = current + torch.tensor([[1.0], [-1.0], [0.0], [5.0]])
    for rule in ({}, PAPER):
        decision = judge(candidate, current, make_config(**rule))
        assert decision.accepted.tolist() == [True, False, False, True]


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.95, 0.97, 0.99])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 63, 64, 500])
def test_student_quantile_is_that_of_scipy(degrees: int, probability: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees))
