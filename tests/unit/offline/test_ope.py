"""Policy evaluation on a point mass whose truth is known: ranks, falls, common random numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import (
    STRIDE,
    FunctionCritics,
    PointMassModel,
    linear_policies,
    make_data,
    point_mass_transitions,
    reward,
    true_returns,
    zero_critics,
)
from scipy import stats
from torch import Tensor

from unio4_lib.judging import ope
from unio4_lib.judging.dynamics import DynamicsModel, Step
from unio4_lib.judging.ope import ModelStep, PolicyEvaluator, model_rollouts
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.settings.model import ImproveConfig

HORIZON = 20
DATA = make_data(point_mass_transitions(episodes=40))


def make_evaluator(
    model: Any, critics: Any = None, *, time_limit: int | None = HORIZON, **values: Any
) -> PolicyEvaluator:
    settings: dict[str, Any] = {
        "horizon": HORIZON,
        "starts": 64,
        "start_states": "dataset",
        "discount": 1.0,
        "model_noise": True,
        "acting": "mean",
    }
    config = ImproveConfig(**{**settings, **values})
    return PolicyEvaluator(DATA, model, critics or zero_critics(), config, time_limit=time_limit)


def by_mean(evaluator: PolicyEvaluator, policies: GaussianPolicy, **values: Any) -> Tensor:
    """Estimates [P, S] of the mean action."""
    assert evaluator.ways[0] == "mean"
    return evaluator.estimate(policies, **values)[0]


def twenty_policies() -> GaussianPolicy:
    """From driving away from the origin to driving there, some toward a wrong place."""
    return linear_policies([-0.2 + 0.1 * k for k in range(20)], [0.5 * ((k * 7) % 5) / 5 for k in range(20)])


def behavior_q(observations: Tensor, actions: Tensor) -> Tensor:
    """True discounted Q of the policy -0.5 x: first the action, then 60 steps of that policy."""
    x, weight = observations[..., 0] + STRIDE * actions[..., 0], 1.0
    total = reward(x)
    for _ in range(60):
        weight *= 0.9
        x = x - STRIDE * 0.5 * x
        total = total + weight * reward(x)
    return total


def spearman(estimates: Tensor, truth: Tensor) -> float:
    return float(stats.spearmanr(estimates.numpy(), truth.numpy()).statistic)


@pytest.mark.parametrize(("estimator", "at_least"), [("return", 0.95), ("amq-sum", 0.9), ("amq-mean", 0.9)])
def test_twenty_policies_are_ranked_as_in_truth(estimator: Any, at_least: float) -> None:
    """Check 18 of the facts: true dynamics, true Q. Nobody falls here, so sum and mean rank alike."""
    policies = twenty_policies()
    truth = true_returns(policies, steps=HORIZON)
    assert truth.std() > 3  # policies that differ
    critics = FunctionCritics(behavior_q, lambda s: torch.zeros(s.shape[:-1]))
    evaluator = make_evaluator(PointMassModel(), critics, estimator=estimator)
    assert spearman(by_mean(evaluator, policies, seed=0).mean(dim=1), truth) >= at_least


def test_the_return_of_the_true_model_is_the_true_return() -> None:
    policies = linear_policies([0.0, 0.5, 2.0])
    starts = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    evaluator = make_evaluator(PointMassModel(), starts=4000)
    evaluator.starts = lambda count, generator: starts.view(2, 2000, 1)  # type: ignore[method-assign]
    estimates = by_mean(evaluator, policies, seed=0)
    assert estimates.shape == (3, 4000)
    # Start positions in [-1, 1] as in the truth: both are known to about 0.2 of 20.
    torch.testing.assert_close(estimates.mean(dim=1), true_returns(policies, steps=HORIZON), atol=0.6, rtol=0)


def test_estimates_are_discounted_and_end_with_a_terminal_value() -> None:
    """Against a loop over steps, without noise: the sum of discounted rewards plus discount^H V(s_H)."""
    critics = FunctionCritics(behavior_q, lambda s: 5.0 + s[..., 0])
    policies = linear_policies([0.3, 1.0])
    for time_limit, bootstraps in ((None, True), (HORIZON, False), (HORIZON + 1, True), (7, False)):
        evaluator = make_evaluator(
            PointMassModel(noise=0.0),
            critics,
            time_limit=time_limit,
            discount=0.8,
            model_noise=False,
            starts=6,
        )
        x = evaluator.starts(6, torch.Generator().manual_seed(3)).reshape(6, 1).expand(2, 6, 1)
        steps, expected = min(HORIZON, time_limit or HORIZON), torch.zeros(2, 6)
        for t in range(steps):
            x = x + STRIDE * policies.distribution(x).mean
            expected += 0.8**t * reward(x[..., 0])
        if bootstraps:
            expected += 0.8**steps * (5.0 + x[..., 0])
        torch.testing.assert_close(by_mean(evaluator, policies, seed=3), expected)


def test_the_terminal_value_is_in_environment_units() -> None:
    """V speaks scaled rewards; here they were multiplied by 4."""
    scaled = make_data(point_mass_transitions(episodes=10))
    object.__setattr__(scaled, "rewards", 4.0 * scaled.rewards)
    critics: Any = FunctionCritics(behavior_q, lambda s: torch.full(s.shape[:-1], 8.0))
    config = ImproveConfig(horizon=1, starts=4, start_states="dataset", model_noise=False, acting="mean")
    model: Any = PointMassModel()
    for bootstrap, more in ((True, 2.0), (False, 0.0)):
        evaluator = PolicyEvaluator(scaled, model, critics, config, time_limit=None, bootstrap=bootstrap)
        policies = linear_policies([0.0])
        x = evaluator.starts(4, torch.Generator().manual_seed(0)).reshape(1, 4)
        torch.testing.assert_close(by_mean(evaluator, policies, seed=0), reward(x) + more)


def test_amq_sums_or_averages_q_over_the_steps_lived() -> None:
    critics = FunctionCritics(behavior_q, lambda s: torch.full(s.shape[:-1], 1e6))  # V plays no part
    policies = linear_policies([0.3, 1.0, -8.0])
    wall = 1.5
    results = {
        name: by_mean(
            make_evaluator(
                PointMassModel(noise=0.0, wall=wall), critics, estimator=name, model_noise=False, starts=10
            ),
            policies,
            seed=3,
        )
        for name in ("amq-sum", "amq-mean")
    }
    x = make_evaluator(PointMassModel()).starts(10, torch.Generator().manual_seed(3)).reshape(10, 1)
    x, alive = x.expand(3, 10, 1), torch.ones(3, 10)
    total, lived = torch.zeros(3, 10), torch.zeros(3, 10)
    for _ in range(HORIZON):
        actions = policies.distribution(x).mean
        total, lived = total + alive * behavior_q(x, actions), lived + alive
        x = x + STRIDE * actions
        alive = alive * (x[..., 0].abs() < wall)
    assert lived[2].max() < HORIZON  # the third policy runs into the wall
    torch.testing.assert_close(results["amq-sum"], total)
    by_model = total.view(3, 2, 5).sum(2) / lived.view(3, 2, 5).sum(2)
    torch.testing.assert_close(results["amq-mean"], by_model.repeat_interleave(5, dim=1))


@pytest.mark.parametrize(
    ("estimator", "separates"), [("return", True), ("amq-sum", True), ("amq-mean", False)]
)
def test_a_policy_that_falls_at_once_scores_below_one_that_survives(estimator: Any, separates: bool) -> None:
    """Defect 2 of the published code: the mean over living states forgets who fell (check 21)."""

    class Alive(PointMassModel):
        def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None, turn: int = 0) -> Step:
            step = super().step(observations, actions, noise)
            return step._replace(rewards=torch.ones_like(step.rewards))

    q = FunctionCritics(lambda s, a: torch.full(s.shape[:-1], 300.0), lambda s: torch.zeros(s.shape[:-1]))
    policies = linear_policies([1.0, 0.0], [0.0, 9.0])  # to the origin, and straight into the wall
    survivor, faller = by_mean(make_evaluator(Alive(wall=1.4), q, estimator=estimator), policies, seed=0)
    if separates:
        assert faller.mean() < 0.5 * survivor.mean()
        assert (faller < survivor).all()
    else:
        torch.testing.assert_close(faller, survivor)


def test_the_same_policy_twice_has_the_same_bits() -> None:
    """Common random numbers: equal starts, models and noise for every policy of a batch."""
    policies = linear_policies([0.7, -0.3, 0.7])
    first, other, again = by_mean(make_evaluator(PointMassModel(noise=0.3)), policies, seed=0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pairs_are_far_less_noisy_than_estimates() -> None:
    policies = linear_policies([0.7, 0.72])
    left, right = by_mean(make_evaluator(PointMassModel(noise=0.2)), policies, seed=0)
    assert (left - right).std() < 0.05 * left.std()


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    policies, evaluator = linear_policies([0.7, 0.1]), make_evaluator(PointMassModel())
    first = by_mean(evaluator, policies, seed=1)
    assert torch.equal(first, by_mean(evaluator, policies, seed=1))
    assert not torch.equal(first, by_mean(evaluator, policies, seed=2))
    still = make_evaluator(PointMassModel(), model_noise=False)
    assert not torch.equal(by_mean(still, policies, seed=1), first)


@pytest.mark.parametrize("estimator", ["return", "amq-sum", "amq-mean"])
@pytest.mark.parametrize("survival", [1.0, 0.8])
def test_dropping_dead_rollouts_changes_no_estimate(
    estimator: Any, survival: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    critics = FunctionCritics(behavior_q, lambda s: 5.0 + s[..., 0])
    policies = linear_policies([0.2, 0.05, -1.0], [0.0, 0.2, 0.0])
    widths: dict[int, list[int]] = {}
    results = {}
    for every in (1, 3, 10_000):
        monkeypatch.setattr(ope, "COMPACT_EVERY", every)
        model = PointMassModel(noise=0.3, wall=1.2, survival=survival)
        evaluator = make_evaluator(model, critics, estimator=estimator, time_limit=None, horizon=60)
        widths[every] = []

        def watch(*inputs: Any, turn: int, seen: list[int] = widths[every], step: Any = model.step) -> Step:
            seen.append(inputs[0].shape[1])
            return step(*inputs, turn=turn)

        monkeypatch.setattr(model, "step", watch)
        results[every] = by_mean(evaluator, policies, seed=0)
    assert len(widths[1]) < 60 or widths[1][-1] < widths[10_000][-1]  # something was dropped
    # With certain deaths the sums are the same; below a survival of 1e-3 the rest of a rollout is let go.
    lost = 1e-5 if survival == 1.0 else 0.06
    torch.testing.assert_close(results[1], results[10_000], atol=lost, rtol=1e-5)
    torch.testing.assert_close(results[3], results[10_000], atol=lost, rtol=1e-5)


def test_survival_weighs_what_follows() -> None:
    """Half of the world ends at every step: the return is the sum of 0.5^t r_t."""
    evaluator = make_evaluator(
        PointMassModel(noise=0.0, survival=0.5), model_noise=False, starts=4, horizon=8
    )
    policies = linear_policies([0.0])  # stays where it is
    x = evaluator.starts(4, torch.Generator().manual_seed(0)).reshape(1, 4)
    expected = reward(x) * sum(0.5**t for t in range(8))
    torch.testing.assert_close(by_mean(evaluator, policies, seed=0), expected)


class Shift:
    """Member m shifts by 10^m and says so in the reward; actions add a hundredth of their sign."""

    members = 3

    def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None, turn: int = 0) -> Step:
        who = (torch.arange(3) + turn) % 3
        shift = (10.0**who)[:, None, None]
        ones = torch.ones(observations.shape[:2])
        return Step(observations + shift + 0.01 * actions.sign(), shift[..., 0] * ones, ones)


def test_models_take_turns_at_every_start() -> None:
    """Start (m, k) is answered by m, m + 1, m + 2, m + 3 ... modulo 3, for each policy."""
    starts = torch.rand(3, 4, 1, generator=torch.Generator().manual_seed(0))
    seen: list[ModelStep] = []
    model: Any = Shift()
    policies = linear_policies([0.0, 0.0], [1.0, -1.0])
    kept, survival, states = model_rollouts(policies, model, starts, 4, seen.append, None)
    expected = starts.expand(2, 3, 4, 1).clone()
    for policy, sign in enumerate((1.0, -1.0)):
        for m in range(3):
            for t in range(4):
                expected[policy, m] += 10.0 ** ((m + t) % 3) + 0.01 * sign
                assert (seen[t].rewards[policy, m] == 10.0 ** ((m + t) % 3)).all()
    torch.testing.assert_close(states, expected)
    assert [step.time for step in seen] == [0, 1, 2, 3]
    assert torch.equal(kept, torch.arange(4).expand(2, 3, 4))
    assert survival.min() == 1


def test_noise_belongs_to_the_start_and_not_to_its_column() -> None:
    """When one policy's rollouts die and are dropped, those that live go on with their own noise."""
    policies = linear_policies([0.1, -1.0])
    states = {}
    for wall in (1.3, np.inf):
        model: Any = PointMassModel(noise=0.2, wall=wall)
        starts = torch.linspace(-1.2, 1.2, 40).view(2, 20, 1)
        generator = torch.Generator().manual_seed(0)
        kept, survival, ends = model_rollouts(policies, model, starts, 60, lambda step: None, generator)
        states[wall] = (kept[0], survival[0], ends[0])
    kept, survival, ends = states[1.3]
    everyone = states[np.inf][2].gather(1, kept[..., None])
    alive = survival > 0
    assert 0 < alive.sum() < 40
    torch.testing.assert_close(ends[alive], everyone[alive])


def test_starts_are_first_rows_or_any_rows() -> None:
    generator = torch.Generator()
    model = PointMassModel(members=3)
    initial = make_evaluator(model, start_states="initial").starts(64, generator.manual_seed(0))
    assert initial.shape == (3, 22, 1)  # at least as many as asked, equally many for each model
    first_rows = DATA.observations[DATA.starts]
    assert torch.isin(initial, first_rows).all()
    anywhere = make_evaluator(model).starts(64, generator.manual_seed(0))
    assert torch.isin(anywhere, DATA.observations).all()
    assert not torch.isin(anywhere, first_rows).all()


def test_learned_models_are_asked_with_the_same_noise_for_every_policy() -> None:
    """A real network in the place of the stub: equal policies agree to rounding at worst."""
    model = DynamicsModel(2, 1, 1, (16, 16), generator=torch.Generator().manual_seed(0))
    model.low.fill_(-3.0)
    model.high.fill_(3.0)
    estimates = by_mean(make_evaluator(model), linear_policies([0.7, -0.3, 0.7]), seed=0)
    torch.testing.assert_close(estimates[0], estimates[2], rtol=1e-5, atol=1e-5)
    assert (estimates[0] - estimates[1]).abs().max() > 1e-3


def sampled_returns(policy: GaussianPolicy, starts: Tensor, seed: int = 5) -> Tensor:
    """Mean return [E] of sampled actions in the true point mass, step by step."""
    g = torch.Generator().manual_seed(seed)
    x = starts.view(1, -1, 1).expand(policy.spec.members, -1, 1)
    total = torch.zeros(policy.spec.members)
    for _ in range(HORIZON):
        gaussian = policy.distribution(x)
        action = gaussian.sample(torch.randn(gaussian.mean.shape, generator=g)).clamp(-1.0, 1.0)
        x = x + STRIDE * action
        total += reward(x[..., 0]).mean(dim=1)
    return total


def test_both_ways_of_acting_have_their_true_return() -> None:
    """A std of 1 costs a policy a third of what its mean action earns."""
    policies = linear_policies([0.5, 2.0, 0.0])
    policies.raw_std.fill_(9.0)
    starts = torch.rand(4000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    evaluator = make_evaluator(PointMassModel(noise=0.0), acting="both", model_noise=False, starts=4000)
    evaluator.starts = lambda count, generator: starts.view(2, 2000, 1)  # type: ignore[method-assign]
    assert evaluator.ways == ("mean", "sampled")
    found = evaluator.estimate(policies, seed=0)
    assert found.shape == (2, 3, 4000)
    mean, sampled = found.mean(dim=2)
    still = policies.narrowed(1e-6)  # sampled without noise: the mean
    torch.testing.assert_close(mean, sampled_returns(still, starts), atol=0.05, rtol=0)
    expected = sampled_returns(policies, starts)
    torch.testing.assert_close(sampled, expected, atol=0.6, rtol=0)
    assert (mean - sampled).min() > 1.0  # 3.7, 1.6 and 6.8 seen


@pytest.mark.parametrize("wall", [np.inf, 1.3])
def test_the_order_of_policies_changes_nothing(wall: float) -> None:
    """Neither their place in the stack nor who else is in it, deaths of others included."""
    gains = [0.7, -0.8, 0.1, 2.0]
    evaluator = make_evaluator(PointMassModel(noise=0.2, wall=wall), acting="both", horizon=60, time_limit=60)
    together = evaluator.estimate(linear_policies(gains), seed=4)
    shuffled = evaluator.estimate(linear_policies([gains[i] for i in (2, 0, 3, 1)]), seed=4)
    torch.testing.assert_close(together[:, [2, 0, 3, 1]], shuffled, rtol=1e-5, atol=1e-4)
    alone = torch.cat([evaluator.estimate(linear_policies([gain]), seed=4) for gain in gains], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_equal_policies_have_equal_bits_by_sampled_actions_too() -> None:
    evaluator = make_evaluator(PointMassModel(noise=0.3), acting="both")
    mean, sampled = evaluator.estimate(linear_policies([0.7, -0.3, 0.7]), seed=0)
    assert torch.equal(sampled[0], sampled[2])
    assert not torch.equal(sampled[0], sampled[1])
    assert not torch.equal(mean[0], sampled[0])
    again = evaluator.estimate(linear_policies([0.7, -0.3, 0.7]), seed=0)
    assert torch.equal(again[1], sampled)


def one_after_the_other(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    return [task() for task in tasks]


def test_ways_side_by_side_have_the_bits_of_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = linear_policies([0.7, 0.1])
    evaluator = make_evaluator(PointMassModel(noise=0.3), acting="both", starts=20_000)
    together = evaluator.estimate(policies, seed=3)
    monkeypatch.setattr(ope, "side_by_side", one_after_the_other)
    assert torch.equal(evaluator.estimate(policies, seed=3), together)


def test_noise_of_actions_is_not_the_noise_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """From equal draws a policy would be judged in a world that knows its exploration."""
    given: list[torch.Generator] = []

    def watch(*arguments: Any) -> Any:
        given.extend(arguments[-2:])
        return model_rollouts(*arguments)

    evaluator = make_evaluator(PointMassModel(), acting="both")
    evaluator.starts = lambda count, generator: torch.zeros(2, 4, 1)  # type: ignore[method-assign]
    monkeypatch.setattr(ope, "model_rollouts", watch)
    monkeypatch.setattr(ope, "side_by_side", one_after_the_other)
    evaluator.estimate(linear_policies([0.0]), seed=7)
    models, actions = given[2:]
    first = [torch.rand(9, generator=g.manual_seed(g.initial_seed())) for g in (models, actions)]
    assert not torch.equal(*first)


def test_torch_takes_32_bits_of_a_seed() -> None:
    """Why the streams of one seed are so near to each other; where this fails they may be put apart."""
    low, high = (torch.rand(9, generator=torch.Generator().manual_seed(7 + more)) for more in (0, 1 << 32))
    assert torch.equal(low, high)
