"""The switch from offline to online: no drop, an honest curve, a run that can be taken up again."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from point_mass import PointMass, make_ppo

from unio4_lib.learning.evaluation import EpisodeStats, evaluate
from unio4_lib.learning.finetune import CurvePoint, FineTuning
from unio4_lib.learning.value import ValueFunction
from unio4_lib.nets.policy import GaussianPolicy
from unio4_lib.settings.model import FinetuneConfig

CONFIG = FinetuneConfig(
    env_steps=4096,
    num_envs=8,
    rollout_steps=32,
    epochs=4,
    minibatch_size=64,
    actor_learning_rate=1e-3,
    critic_learning_rate=3e-3,
    discount=0.9,
    value_hidden=(32, 32),
    warmup_steps=1024,
    evaluate_every=1000,
)


def score(policy: GaussianPolicy, *, sampled: bool = False) -> EpisodeStats:
    if not sampled:
        return evaluate(policy.act, PointMass, 16, 7)
    noise = np.random.default_rng(7)
    return evaluate(lambda rows: policy.act(rows, noise.standard_normal((len(rows), 1))), PointMass, 16, 7)


@cache
def _half_trained() -> GaussianPolicy:
    ppo = make_ppo()
    for _ in range(8):
        ppo.train()
    return ppo.policy


def half_trained() -> GaussianPolicy:
    """A policy that nobody else has; trained once."""
    return copy.deepcopy(_half_trained())


def tuning(config: FinetuneConfig = CONFIG, seed: int = 0) -> FineTuning:
    return FineTuning(half_trained(), config, PointMass, seed=seed)


def same_weights(left: GaussianPolicy, right: GaussianPolicy) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_first_point_is_the_unchanged_policy_and_warm_up_moves_only_the_value() -> None:
    run = tuning()
    before_value = [p.clone() for p in run.ppo.value.parameters()]
    first = next(run.run(score))
    assert first.env_steps == 0
    assert np.array_equal(first.stats.returns, score(half_trained()).returns)
    run.advance()
    assert run.ppo.env_steps == CONFIG.warmup_steps
    assert same_weights(run.ppo.policy, half_trained())
    assert not any(torch.equal(a, b) for a, b in zip(before_value, run.ppo.value.parameters(), strict=True))
    run.advance()
    assert not same_weights(run.ppo.policy, half_trained())


def test_warm_up_explains_the_returns() -> None:
    run = tuning()
    before = run.ppo.targets(run.ppo.collect(32), 1.0)[2].item()
    run.advance()
    fresh = run.ppo.targets(run.ppo.collect(64), 1.0)[2].item()
    assert fresh > 0.5  # rows that the fit has not seen
    assert fresh > before + 0.4


def test_the_curve_covers_the_budget_and_rises() -> None:
    curve = list(tuning().run(score))
    assert [point.env_steps for point in curve] == [0, 1024, 2048, 3072, 4096]
    assert curve[-1].stats.mean > curve[0].stats.mean
    assert curve[1].stats.mean == curve[0].stats.mean  # only the warm-up happened


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_a_resumed_fine_tuning_is_the_same(rounds: int) -> None:
    whole = tuning()
    states = {}

    def keep(env_steps: int, metrics: dict[str, torch.Tensor]) -> None:
        states[len(states) + 1] = whole.state_dict()

    states_at_start = whole.state_dict()
    curve = list(whole.run(score, keep))
    state = states_at_start if rounds == 0 else states[rounds]
    resumed = tuning(seed=5)
    resumed.load_state_dict(state)
    rest = list(resumed.run(score))
    assert same_weights(whole.ppo.policy, resumed.ppo.policy)
    assert same_weights(whole.delivered, resumed.delivered)
    assert whole.delivered_at == resumed.delivered_at
    tail: list[CurvePoint] = curve[len(curve) - len(rest) :]
    for left, right in zip(tail, rest, strict=True):
        assert left.env_steps == right.env_steps
        assert np.array_equal(left.stats.returns, right.stats.returns)


def test_an_initial_value_is_used_in_its_own_units() -> None:
    net = ValueFunction.create(1, (8,), generator=torch.Generator().manual_seed(0)).net
    value = ValueFunction.from_net(net, mean=3.0, std=10.0)
    config = CONFIG.model_copy(update={"warmup_steps": 0})
    run = FineTuning(half_trained(), config, PointMass, seed=0, initial_value=value)
    observations = torch.linspace(-1, 1, 5)[:, None]
    torch.testing.assert_close(run.ppo.value(observations), 3.0 + 10.0 * net(observations)[0, :, 0])
    before = run.ppo.value(observations)
    run.ppo.value.rescale(torch.linspace(50.0, 90.0, 20))  # the first targets do not undo what it knows
    torch.testing.assert_close(run.ppo.value(observations), before, rtol=1e-4, atol=1e-3)
    run.advance()
    assert run.ppo.env_steps == config.num_envs * config.rollout_steps  # no warm-up


def test_a_round_tells_what_the_learner_itself_earned() -> None:
    run = tuning()
    metrics = [run.advance() for _ in range(3)]
    recent = run.ppo.collector.recent_returns
    assert len(recent) > 8
    assert metrics[-1]["acting/sampled_return"].item() == pytest.approx(sum(recent) / len(recent))
    # MLflow shows them by their last part, beside the curve's "return".
    shown = [name.partition("/")[2] for name in metrics[-1]] + ["return"]
    assert len(set(shown)) == len(shown), shown


def test_looks_and_deliveries_are_of_the_average_over_updates() -> None:
    run = tuning(CONFIG.model_copy(update={"warmup_steps": 0, "averaging": 0.75}))
    expected = half_trained().net.output.weight.detach().clone()
    for _ in range(3):
        run.advance()
        expected = 0.75 * expected + 0.25 * run.ppo.policy.net.output.weight.detach()
    torch.testing.assert_close(run.average.net.output.weight, expected)
    evaluator = Evaluator([7.0])
    next(run.run(evaluator))
    assert torch.equal(evaluator.shown[0]["net.output.weight"], run.average.net.output.weight)
    assert same_weights(run.delivered, run.average)


def test_without_averaging_the_newest_policy_is_looked_at() -> None:
    run = tuning(CONFIG.model_copy(update={"averaging": 0.0}))
    for _ in range(3):
        run.advance()
    assert same_weights(run.average, run.ppo.policy)


class Evaluator:
    """Evaluations with given means; keeps the policies it was shown."""

    def __init__(self, means: list[float]) -> None:
        self.means, self.shown = iter(means), []

    def __call__(self, policy: GaussianPolicy, *, sampled: bool = False) -> EpisodeStats:
        if sampled:
            return EpisodeStats(np.zeros(2), np.array([1, 1]))
        self.shown.append({name: value.clone() for name, value in policy.state_dict().items()})
        mean = next(self.means)
        return EpisodeStats(np.array([mean - 1.0, mean + 1.0]), np.array([1, 1]))


@pytest.mark.parametrize(("deliver", "index"), [("best", 2), ("last", 4)])
def test_what_is_delivered_is_the_best_point_and_not_the_last(deliver: str, index: int) -> None:
    config = CONFIG.model_copy(update={"deliver": deliver})
    run, evaluator = tuning(config), Evaluator([5.0, 3.0, 9.0, 9.0, 2.0])
    curve = list(run.run(evaluator))
    assert run.delivered_at == curve[index].env_steps
    for name, value in run.delivered.state_dict().items():
        assert torch.equal(value, evaluator.shown[index][name])


def test_a_fine_tuning_that_only_harms_delivers_the_offline_policy() -> None:
    run = tuning(CONFIG.model_copy(update={"tolerated_fall": None}))
    list(run.run(Evaluator([5.0, 4.0, 3.0, 2.0, 1.0])))
    assert run.delivered_at == 0
    assert same_weights(run.delivered, half_trained())
    assert not same_weights(run.ppo.policy, half_trained())
