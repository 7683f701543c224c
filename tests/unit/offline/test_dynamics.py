"""Dynamics: a linear system is recovered with its noise, and ends stay ends."""

from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import following, make_data, make_transitions
from torch import Tensor

from unio4_lib.data.transitions import Transitions
from unio4_lib.judging.dynamics import DynamicsModel, DynamicsTrainer, dynamics_loss
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.settings.model import DynamicsConfig

MATRIX = np.array([[0.95, 0.1], [-0.2, 0.9]])
INPUT = np.array([[0.1], [0.5]])
NOISE = np.array([0.02, 0.1])  # a quiet and a loud dimension


def make_config(**values: Any) -> DynamicsConfig:
    settings: dict[str, Any] = {
        "members": 3,
        "elites": 2,
        "hidden": (32, 32),
        "batch_size": 128,
        "steps": 1500,
        "learning_rate": 5e-3,
        "holdout_fraction": 0.15,
    }
    return DynamicsConfig(**{**settings, **values})


def linear_transitions(episodes: int = 120, length: int = 25) -> Transitions:
    """x' = A x + B a + noise, reward x' . (1, -1); episodes end by timeouts."""
    g = np.random.default_rng(0)
    x = g.uniform(-1, 1, size=(episodes, 2))
    columns = []
    for _ in range(length):
        a = g.uniform(-1, 1, size=(episodes, 1))
        successor = x @ MATRIX.T + a @ INPUT.T + NOISE * g.normal(size=x.shape)
        columns.append((x, a, successor @ [1.0, -1.0], successor))
        x = successor
    stacked = [np.stack(column, axis=1) for column in zip(*columns, strict=True)]
    x, a, r, successor = (part.reshape(episodes * length, *part.shape[2:]) for part in stacked)
    ends = np.tile(np.arange(length) == length - 1, episodes)
    return make_transitions(x, a, r, successor, np.zeros_like(ends), ends)


def train(data: OfflineData, config: DynamicsConfig, *, termination: Any = None) -> DynamicsTrainer:
    trainer = DynamicsTrainer(data, config, seed=0, termination=termination)
    for step in range(1, config.steps + 1):
        trainer.step()
        if step % (config.steps // 3) == 0:
            trainer.evaluate()
    return trainer


@pytest.fixture(scope="module")
def trained() -> DynamicsTrainer:
    return train(make_data(linear_transitions(), normalize=True), make_config())


def test_a_linear_system_is_recovered_with_its_noise(trained: DynamicsTrainer) -> None:
    data, model = trained.data, trained.result()
    rows = trained.holdout_rows
    figures = trained.evaluate()
    # What remains of the best possible prediction: noise of both dimensions and of their difference.
    stds = torch.tensor([*(NOISE / data.observation_std.numpy()), np.hypot(*NOISE)], dtype=torch.float32)
    floor = (stds / model.target_std).square()
    errors = figures["dynamics/holdout_squared_error"]
    assert floor.mean() * 0.85 < errors.min()  # 450 rows: the floor itself is known to 7 %
    assert errors.max() < floor.mean() * 1.25
    mean, log_variance, _ = model.heads(data.observations[rows], data.actions[rows])
    # The mean function itself, away from the noise: within a fifth of the noise's size.
    raw = data.observations[rows] * data.observation_std + data.observation_mean
    change = (
        raw @ torch.tensor((MATRIX - np.eye(2)).T).float()
        + data.actions[rows] @ torch.tensor(INPUT.T).float()
    )
    predicted = mean * model.target_std + model.target_mean
    wrong = predicted[..., :2] * data.observation_std - change
    assert (wrong.square().mean(dim=(0, 1)).sqrt() < 0.3 * torch.tensor(NOISE)).all()
    learned = (0.5 * log_variance).exp().mean(dim=(0, 1)) * model.target_std
    torch.testing.assert_close(learned, stds, rtol=0.12, atol=0)
    within = figures["dynamics/within_one_std"]
    assert ((within > 0.63) & (within < 0.73)).all()


def test_models_beat_the_prediction_of_no_change(trained: DynamicsTrainer) -> None:
    """In standardized targets no change costs 1; the noise's share of it is about 0.2 here."""
    assert trained.evaluate()["dynamics/holdout_squared_error"].max() < 0.3


def test_a_step_is_that_of_each_member_on_its_own(trained: DynamicsTrainer) -> None:
    model = trained.model
    g = torch.Generator().manual_seed(0)
    states = 0.5 * torch.randn(3, 7, 2, generator=g)
    actions = 3 * torch.rand(3, 7, 1, generator=g) - 1.5  # some outside the box
    noise = torch.randn(3, 7, 3, generator=g)
    for draws in (noise, None):
        step = model.step(states, actions, draws)
        for member in range(3):
            alone = model.elites([member])
            part = slice(member, member + 1)
            single = alone.step(states[part], actions[part], None if draws is None else draws[part])
            for field, expected in zip(step, single, strict=True):
                torch.testing.assert_close(field[part], expected)
        assert (step.next_observations[0] - step.next_observations[1]).abs().max() > 1e-4
    mean, log_variance, logit = model.heads(states, actions.clamp(-1, 1))
    drawn = (mean + (0.5 * log_variance).exp() * noise) * model.target_std + model.target_mean
    step = model.step(states, actions, noise)
    torch.testing.assert_close(step.next_observations, states + drawn[..., :2])  # a residual, in the range
    torch.testing.assert_close(step.rewards, drawn[..., 2])
    torch.testing.assert_close(step.survival, 1 - torch.sigmoid(logit))


def test_rollouts_stay_in_the_range_of_the_data_with_a_margin(trained: DynamicsTrainer) -> None:
    data, model = trained.data, trained.model
    low, high = data.observations.amin(dim=0), data.observations.amax(dim=0)
    far = torch.full((3, 1, 2), 1e3)
    step = model.step(far, torch.zeros(3, 1, 1), None)
    torch.testing.assert_close(step.next_observations[0, 0], high + 0.25 * (high - low))
    step = model.step(-far, torch.zeros(3, 1, 1), None)
    torch.testing.assert_close(step.next_observations[0, 0], low - 0.25 * (high - low))


def test_the_termination_rule_sees_raw_next_observations(trained: DynamicsTrainer) -> None:
    seen: list[Tensor] = []

    def rule(observations: Tensor) -> Tensor:
        seen.append(observations)
        return observations[..., 0] > 0

    model = DynamicsModel(3, 2, 1, (32, 32), termination=rule)
    model.load_state_dict(trained.model.state_dict())
    step = model.step(torch.randn(3, 9, 2), torch.zeros(3, 9, 1), None)
    data = trained.data
    raw = step.next_observations * data.observation_std + data.observation_mean
    torch.testing.assert_close(seen[0], raw)
    assert torch.equal(step.survival, (raw[..., 0] <= 0).float())
    assert model.elites([0]).termination is rule


def test_elites_are_the_members_with_the_lowest_holdout_errors(trained: DynamicsTrainer) -> None:
    trainer = DynamicsTrainer(trained.data, make_config(members=4, elites=3), seed=0, termination=None)
    trainer.best.update(torch.tensor([0.3, 0.1, 0.4, 0.2]))
    weights = trainer.model.net.output.weight.detach().clone()
    model = trainer.result()
    assert model.members == 3
    assert torch.equal(model.net.output.weight, weights[[1, 3, 0]])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_every_member_delivers_its_best_weights_not_its_last(trained: DynamicsTrainer) -> None:
    trainer = DynamicsTrainer(trained.data, make_config(elites=3), seed=0, termination=None)
    trainer.evaluate()
    good = trainer.model.net.output.weight.detach().clone()
    order = trainer.best.losses.argsort()
    with torch.no_grad():
        trainer.model.net.output.weight.add_(10.0)
    trainer.evaluate()
    assert torch.equal(trainer.result().net.output.weight, good[order])


def test_the_loss_is_its_formula_and_the_variance_never_excuses_the_mean() -> None:
    g = torch.Generator().manual_seed(0)
    mean, log_variance, targets = torch.randn(3, 2, 4, 3, generator=g, dtype=torch.float64)
    logit, ended = torch.randn(2, 4, generator=g, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[:2]
    leaves = [mean.requires_grad_(), log_variance.requires_grad_(), logit.requires_grad_()]
    loss, metrics = dynamics_loss(mean, log_variance, logit, targets, ended)
    expected = 0.0
    with torch.no_grad():
        for m in range(2):
            for b in range(4):
                p = 1 / (1 + float(torch.exp(-logit[m, b])))
                expected -= float(ended[m, b]) * np.log(p) / 4 + (1 - float(ended[m, b])) * np.log(1 - p) / 4
                for d in range(3):
                    error = float(mean[m, b, d] - targets[m, b, d]) ** 2
                    spread = float(log_variance[m, b, d])
                    expected += (error + 0.1 * (error * np.exp(-spread) + spread)) / 12
    assert float(loss.detach()) == pytest.approx(expected)
    gradient, *_ = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(gradient, 2 * (mean - targets).detach() / 12)  # whatever the variance is
    torch.testing.assert_close(
        metrics["dynamics/squared_error"], (mean - targets).detach().square().mean(dim=(1, 2))
    )


def walker_transitions() -> Transitions:
    """A random walk that ends beyond |x| > 1, or by time after 30 steps."""
    g, rows = np.random.default_rng(0), []
    for _ in range(150):
        x = g.uniform(-0.6, 0.6)
        for age in range(30):
            a = g.uniform(-1, 1)
            successor = x + 0.3 * a
            fallen = abs(successor) > 1
            rows.append((x, a, 1.0 - 0.1 * a, successor, fallen, age == 29 and not fallen))
            x = successor
            if fallen:
                break
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    states, actions, rewards, successors, terminals, timeouts = columns
    return make_transitions(
        states[:, None], actions[:, None], rewards, successors[:, None], terminals, timeouts
    )


def test_terminations_are_learned_where_no_rule_is_known() -> None:
    transitions = walker_transitions()
    assert 0.02 < transitions.terminals.mean() < 0.2
    trainer = train(make_data(transitions, normalize=True), make_config(steps=1200))
    assert trainer.evaluate()["dynamics/termination_accuracy"].min() > 0.97
    data, model = trainer.data, trainer.result()
    g = torch.Generator().manual_seed(1)
    x = torch.rand(500, 1, generator=g) * 1.8 - 0.9
    a = torch.rand(500, 1, generator=g) * 2 - 1
    normalized = ((x - data.observation_mean) / data.observation_std).expand(2, 500, 1)
    survival = model.step(normalized, a.expand(2, 500, 1), None).survival.mean(dim=0)
    distance = (x + 0.3 * a).abs()[:, 0]
    assert survival[distance < 0.9].min() > 0.8
    assert survival[distance > 1.1].max() < 0.2


def test_successors_never_cross_the_end_of_an_episode() -> None:
    """Defect 7 of the published code: row t + 1 as the successor teaches jumps from an end to a start.

    Here starts lie 100 away from ends; the largest target is a step of the walk.
    """
    observations = np.concatenate([100.0 * k + np.arange(5) for k in range(6)])[:, None]
    ends = np.arange(30) % 5 == 4
    successors = following(observations)
    successors[ends] = observations[ends] + 1
    terminals = ends & (np.arange(30) < 15)
    data = make_data(
        make_transitions(
            observations, np.zeros((30, 1)), np.ones(30), successors, terminals, ends & ~terminals
        )
    )
    trainer = DynamicsTrainer(data, make_config(), seed=0, termination=None)
    targets = trainer.targets * trainer.model.target_std + trainer.model.target_mean
    torch.testing.assert_close(targets[:, 0], torch.ones(30))
    torch.testing.assert_close(targets[:, 1], torch.ones(30))


def test_members_draw_minibatches_of_their_own(trained: DynamicsTrainer, monkeypatch: Any) -> None:
    trainer = DynamicsTrainer(trained.data, make_config(), seed=0, termination=None)
    seen: list[Tensor] = []
    heads = trainer.model.heads

    def watch(states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(states)
        return heads(states, actions)

    monkeypatch.setattr(trainer.model, "heads", watch)
    trainer.step()
    assert seen[0].shape == (3, 128, 2)
    assert not torch.equal(seen[0][0], seen[0][1])


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 7, 300])
def test_models_take_turns_as_a_slow_loop_does(turn: int) -> None:
    """Block m of the rows is answered by member (m + turn) mod M, with the noise of its own rows."""
    g = torch.Generator().manual_seed(1)
    model = DynamicsModel(3, 2, 1, (8,), generator=g).requires_grad_(False)
    model.target_std.copy_(torch.tensor([0.5, 2.0, 4.0]))
    observations, actions, noise = (torch.randn(3, 5, size, generator=g) for size in (2, 1, 3))
    found = model.step(observations, actions, noise, turn=turn)
    for m in range(3):
        alone = model.elites([(m + turn) % 3])
        expected = alone.step(observations[m : m + 1], actions[m : m + 1], noise[m : m + 1])
        for ours, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[m], wanted[0])
    without = model.step(observations, actions, None, turn=turn)
    still = model.step(observations, actions, torch.zeros_like(noise), turn=turn)
    for ours, wanted in zip(without, still, strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("members", [1, 2, 5, 8])
def test_no_model_both_teaches_and_judges(members: int) -> None:
    g = torch.Generator().manual_seed(1)
    model = DynamicsModel(members, 2, 1, (8,), generator=g).requires_grad_(False)
    model.low.fill_(-7.0)
    training, judging = model.halves()

    def fingerprints(part: DynamicsModel) -> list[float]:
        return [float(weights.sum()) for weights in part.net.output.weight]

    every, taught, judges = (fingerprints(part) for part in (model, training, judging))
    assert len(set(every)) == members
    if members == 1:
        assert taught == judges == every
        return
    assert taught == every[::2]  # the best learns, the second best judges: equally good
    assert judges == every[1::2]
    assert float(judging.low[0]) == float(training.low[0]) == -7.0
