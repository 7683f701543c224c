"""What the models are known to be wrong by, and that the gate asks for more than that."""

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
    make_transitions,
    point_mass_transitions,
    reward,
    zero_critics,
)

from unio4_lib.config import ImproveConfig
from unio4_lib.offline.data import OfflineData
from unio4_lib.offline.ope import Calibration, PolicyEvaluator, episode_returns
from unio4_lib.stages.method import improve_trainer

HORIZON = 10


def make_evaluator(data: OfflineData, model: Any, **values: Any) -> PolicyEvaluator:
    config = ImproveConfig(**{"horizon": HORIZON, "starts": 64, "discount": 0.9, **values})
    return PolicyEvaluator(data, model, zero_critics(), config, time_limit=None)


def three_episodes() -> OfflineData:
    """4 steps to a fall, 3 steps cut off, 12 steps cut off."""
    lengths, ended = [4, 3, 12], [True, False, False]
    rows = sum(lengths)
    terminals, timeouts = np.zeros(rows, bool), np.zeros(rows, bool)
    for last, fell in zip(np.cumsum(lengths) - 1, ended, strict=True):
        (terminals if fell else timeouts)[last] = True
    values = np.arange(rows, dtype=np.float64)
    flat = np.zeros((rows, 1))
    return make_data(make_transitions(flat, flat, values, flat, terminals, timeouts))


def test_returns_of_episodes_are_those_of_a_plain_loop_and_a_cut_one_is_unknown() -> None:
    data = three_episodes()
    returns, known = episode_returns(data, HORIZON, 0.9)
    for episode, (first, length) in enumerate([(0, 4), (4, 3), (7, 12)]):
        expected = sum(0.9**t * (first + t) for t in range(min(length, HORIZON)))
        assert float(returns[episode]) == pytest.approx(expected, rel=1e-6)
    assert known.tolist() == [True, False, True]
    assert episode_returns(data, 13, 0.9)[1].tolist() == [True, False, False]


def clones_of_the_point_mass() -> tuple[OfflineData, Any]:
    """Data of tanh(0.3 - 0.8 x) + 0.1 noise, and two policies that are exactly that."""
    g = np.random.default_rng(0)
    episodes, length = 400, HORIZON
    x = g.uniform(-1.0, 1.0, episodes)
    columns = []
    for _ in range(length):
        a = np.clip(np.tanh(0.3 - 0.8 * x) + 0.1 * g.normal(size=episodes), -1.0, 1.0)
        following = x + STRIDE * a
        columns.append((x, a, reward(following), following))
        x = following
    x, a, r, following = (np.stack(column, axis=1).reshape(-1) for column in zip(*columns, strict=True))
    ends = np.tile(np.arange(length) == length - 1, episodes)
    rows = make_transitions(x[:, None], a[:, None], r, following[:, None], np.zeros_like(ends), ends)
    return make_data(rows), linear_policies([0.8, 0.8], [0.3, 0.3])


def test_the_true_model_returns_what_was_recorded() -> None:
    data, clones = clones_of_the_point_mass()
    found = make_evaluator(data, PointMassModel(noise=0.0), model_noise=False).calibrate(
        clones, seed=0, starts=512
    )
    assert found is not None
    assert found.error < 0.005 * abs(found.recorded)


def test_models_that_invent_falls_are_found_out() -> None:
    """Each step survives with 0.95 where nothing ever falls: the sum shrinks by what a plain loop says."""
    data, clones = clones_of_the_point_mass()
    found = make_evaluator(data, PointMassModel(survival=0.95), model_noise=False).calibrate(
        clones, seed=0, starts=512
    )
    assert found is not None
    by_step = data.environment_rewards.view(400, HORIZON).mean(dim=0).tolist()
    expected = sum((0.9 * 0.95) ** t * value for t, value in enumerate(by_step))
    assert found.modeled == pytest.approx(expected, rel=0.02)
    assert found.recorded == pytest.approx(sum(0.9**t * v for t, v in enumerate(by_step)), rel=0.02)
    assert found.error == pytest.approx(found.recorded - found.modeled)


def test_actions_are_sampled_as_the_data_was() -> None:
    """Reward -a^2 of a policy that stands still in the mean: only its noise costs, std^2 a step."""

    class Effort(PointMassModel):
        def step(self, observations: Any, actions: Any, noise: Any) -> Any:
            return super().step(observations, actions, noise)._replace(rewards=-actions[..., 0].square())

    data, _ = clones_of_the_point_mass()
    found = make_evaluator(data, Effort(), model_noise=False, discount=1.0).calibrate(
        linear_policies([0.0]), seed=0, starts=512
    )
    assert found is not None
    assert found.modeled == pytest.approx(-HORIZON * 0.1**2, rel=0.1)


@pytest.mark.parametrize("estimator", ["amq-sum", "amq-mean"])
def test_estimates_in_units_of_q_have_no_calibration(estimator: Any) -> None:
    data, clones = clones_of_the_point_mass()
    evaluator = make_evaluator(data, PointMassModel(), estimator=estimator)
    assert evaluator.calibrate(clones, seed=0, starts=64) is None


def test_without_a_known_return_there_is_no_calibration() -> None:
    data = make_data(point_mass_transitions(episodes=4, length=5))  # all cut off before the horizon
    assert make_evaluator(data, PointMassModel()).calibrate(linear_policies([0.8]), seed=0, starts=64) is None


@pytest.mark.parametrize(
    ("clone", "error", "gains", "accepted"),
    [
        (10.0, 0.0, [1.0, 2.0], [True, True]),
        (10.0, 1.5, [1.0, 2.0], [False, True]),
        (10.0, 9.0, [1.0, 2.0], [False, False]),
        (10.0, 1.5, [2.0, 1.0], [True, True]),  # 3 over the clone
        (10.0, 1.5, [1.0, 1.0], [False, False]),  # what was refused is not gained
        (4.0, 1.5, [6.0, 7.0], [False, False]),  # falls of the clone that the models invent
        (4.0, 1.5, [7.0, 8.0], [False, True]),  # 2 over the recorded return
        (15.0, 1.5, [1.0, 2.0], [False, True]),  # a clone that is better than the data: over that clone
    ],
)
def test_a_policy_must_have_gained_more_than_the_models_are_wrong_by(
    clone: float, error: float, gains: list[float], accepted: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check brings a gain over the accepted policy; 10 is recorded."""
    from unio4_lib.config import RunConfig
    from unio4_lib.offline.critics import Critics

    config = RunConfig(
        dataset="none",
        evaluate={"seed": 9},  # type: ignore[arg-type]
        improve=ImproveConfig(steps=2, evaluate_every=1, batch_size=8, horizon=5, starts=8),
    )
    data, clones = clones_of_the_point_mass()
    critics = Critics(1, 1, config.critics, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(PolicyEvaluator, "calibrate", lambda *_, **__: Calibration(10.0, 10.0 - error))
    coming = iter(gains)

    def estimate(self: Any, policies: Any, *, seed: int, starts: int | None = None) -> torch.Tensor:
        noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(seed)) * 0.01
        return clone + float(trainer.gained[0]) + torch.cat([noise + next(coming), torch.zeros(2, 16)])

    monkeypatch.setattr(PolicyEvaluator, "estimate", estimate)
    model: Any = PointMassModel()
    trainer = improve_trainer(data, clones, critics, model, config, time_limit=None)
    for _ in range(2):
        trainer.step()
        trainer.evaluate()
    assert [entry.accepted for entry in trainer.log if entry.member == 0] == accepted


def test_critics_are_not_asked() -> None:
    """The tail beyond the horizon has no recorded counterpart."""
    data, clones = clones_of_the_point_mass()
    wild: Any = FunctionCritics(lambda s, a: s[..., 0] * torch.nan, lambda s: s[..., 0] * torch.nan)
    config = ImproveConfig(horizon=HORIZON, starts=64, discount=0.9)
    evaluator = PolicyEvaluator(data, PointMassModel(), wild, config, time_limit=None)  # type: ignore[arg-type]
    found = evaluator.calibrate(clones, seed=0, starts=64)
    assert found is not None
    assert np.isfinite(found.modeled)
