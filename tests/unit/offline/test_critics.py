"""Critics: hand numbers, where gradients go, and small tasks whose values are known."""

from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import following, make_data, make_transitions, parameters_of, same_bits

from unio4_lib.learning.critics import (
    Critics,
    CriticTrainer,
    expectile_loss,
    q_losses,
    regression_losses,
    value_gaps,
    value_losses,
)
from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.settings.model import CriticsConfig


def value_loss(critics: Critics, batch: Batch, expectile: float) -> torch.Tensor:
    return value_losses(critics, value_gaps(critics, batch), expectile).mean()


def q_loss(critics: Critics, batch: Batch, next_values: torch.Tensor, discount: float) -> torch.Tensor:
    return q_losses(critics, batch, next_values, discount).mean()


def make_config(**values: Any) -> CriticsConfig:
    settings: dict[str, Any] = {
        "q_hidden": (32,),
        "v_hidden": (32,),
        "layer_norm": False,
        "discount": 0.9,
        "polyak": 0.2,
        "monte_carlo_steps": 100,
        "steps": 1200,
        "batch_size": 128,
        "learning_rate": 5e-3,
        "final_learning_rate_share": 0.05,
    }
    return CriticsConfig(**{**settings, **values})


def make_critics(**values: Any) -> Critics:
    critics = Critics(2, 1, make_config(**values), generator=torch.Generator().manual_seed(0))
    critics.scale.fill_(2.0)
    critics.shift.fill_(-1.0)
    for parameter in critics.q_target.parameters():  # the slow copy lags behind
        parameter.add_(0.1)
    return critics


def make_batch(rows: int = 6) -> Batch:
    g = torch.Generator().manual_seed(1)
    states, successors = torch.randn(2, rows, 2, generator=g)
    actions = torch.rand(rows, 1, generator=g) * 2 - 1
    rewards, zeros = torch.randn(rows, generator=g), torch.zeros(rows)
    return Batch(states, actions, rewards, successors, zeros, zeros, actions, zeros, zeros)


def fit(data: OfflineData, config: CriticsConfig, seed: int = 0) -> Critics:
    trainer = CriticTrainer(data, config, seed=seed)
    for _ in range(config.steps):
        trainer.step()
    return trainer.result()


@pytest.mark.parametrize(
    ("expectile", "expected"),
    [(0.5, [2.0, 0.0, 0.125]), (0.7, [1.2, 0.0, 0.175]), (0.9, [0.4, 0.0, 0.225])],
)
def test_expectile_loss_by_hand(expectile: float, expected: list[float]) -> None:
    """u = -2, 0, 0.5: (1 - expectile) * 4, 0, expectile * 0.25."""
    torch.testing.assert_close(
        expectile_loss(torch.tensor([-2.0, 0.0, 0.5]), expectile), torch.tensor(expected)
    )


def test_expectile_one_half_is_half_the_squared_error() -> None:
    u = torch.randn(100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(expectile_loss(u, 0.5), 0.5 * u.square())


def test_losses_are_their_formulas_in_the_networks_unit() -> None:
    """Transcribed row by row: V toward min target Q, both Q toward r + discount (1 - terminal) V(s')."""
    critics, batch = make_critics(), make_batch()
    batch = batch._replace(terminals=torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    next_values = critics.values(batch.next_observations).detach()
    by_hand_v, by_hand_q = 0.0, 0.0
    for i in range(6):
        inputs = torch.cat([batch.observations[i], batch.actions[i]])[None]
        lowest = min(float(critics.q_target(inputs)[k, 0, 0].detach() * 2 - 1) for k in range(2))
        u = lowest - float(critics.v(batch.observations[i][None])[0, 0, 0].detach() * 2 - 1)
        by_hand_v += (0.8 if u > 0 else 0.2) * (u / 2) ** 2 / 6
        target = float(batch.rewards[i]) + 0.9 * (1 - float(batch.terminals[i])) * float(next_values[i])
        for k in range(2):
            q = float(critics.q(inputs)[k, 0, 0].detach() * 2 - 1)
            by_hand_q += ((q - target) / 2) ** 2 / 6
    assert float(value_loss(critics, batch, 0.8).detach()) == pytest.approx(by_hand_v, rel=1e-5)
    assert float(q_loss(critics, batch, next_values, 0.9).detach()) == pytest.approx(by_hand_q, rel=1e-5)


def moved_by(critics: Critics, loss: torch.Tensor) -> set[str]:
    """Which of the networks the gradient of a loss reaches."""
    critics.zero_grad(set_to_none=True)
    loss.backward()
    return {name.split(".")[0] for name, p in critics.named_parameters() if p.grad is not None}


def test_each_loss_reaches_its_own_network_only() -> None:
    critics, batch = make_critics(), make_batch()
    for parameter in critics.parameters():  # a gradient that is let through by mistake would be seen
        parameter.requires_grad_(True)
    assert moved_by(critics, value_loss(critics, batch, 0.7)) == {"v"}
    next_values = critics.values(batch.next_observations)
    assert moved_by(critics, q_loss(critics, batch, next_values, 0.9)) == {"q"}
    assert moved_by(critics, regression_losses(critics, batch, torch.ones(6)).mean()) == {"q", "v"}


@pytest.mark.parametrize("kind", ["iql", "sarsa"])
@pytest.mark.parametrize("polyak", [0.05, 1e-9])
def test_the_slow_copy_follows_by_its_rate_alone(kind: Any, polyak: float) -> None:
    """After one step target = old + polyak (online - old), exactly; the optimizer never touches it."""
    trainer = CriticTrainer(chain_data(), make_config(kind=kind, polyak=polyak, monte_carlo_steps=0), seed=0)
    for _ in range(3):
        before = parameters_of(trainer.critics.q_target)
        trainer.step()
        online = parameters_of(trainer.critics.q)
        for old, q, new in zip(before, online, trainer.critics.q_target.parameters(), strict=True):
            torch.testing.assert_close(new, torch.lerp(old, q, polyak), rtol=0, atol=0)
            assert not torch.equal(q, old)
    assert not any(p.requires_grad for p in trainer.critics.q_target.parameters())


def test_target_every_skips_updates() -> None:
    trainer = CriticTrainer(chain_data(), make_config(target_every=2, monte_carlo_steps=0), seed=0)
    before = parameters_of(trainer.critics.q_target)
    trainer.step()
    assert same_bits(before, parameters_of(trainer.critics.q_target))
    trainer.step()
    assert not same_bits(before, parameters_of(trainer.critics.q_target))


def test_the_monte_carlo_phase_ends_with_a_copy() -> None:
    trainer = CriticTrainer(chain_data(), make_config(monte_carlo_steps=5, polyak=1e-3), seed=0)
    for step in range(1, 7):
        trainer.step()
        equal = same_bits(parameters_of(trainer.critics.q), parameters_of(trainer.critics.q_target))
        assert equal == (step == 5)


def test_the_monte_carlo_phase_fits_returns() -> None:
    data = chain_data()
    config = make_config(steps=600, monte_carlo_steps=600)
    critics = fit(data, config)
    # The same state has other returns near a timeout: the best fit is the mean return of the state.
    for state in range(3):
        rows = data.observations[:, state] == 1
        assert critics.values(data.observations[rows][:1]).item() == pytest.approx(
            data.returns[rows].mean().item(), abs=0.15
        )


def test_a_terminal_hides_its_successor_and_a_timeout_does_not() -> None:
    critics, batch = make_critics(), make_batch(2)
    poison = batch._replace(next_observations=torch.full((2, 2), 1e3))
    for end, poisoned in ((1.0, False), (0.0, True)):
        losses = []
        for rows in (batch, poison):
            rows = rows._replace(terminals=torch.full((2,), end))
            losses.append(float(q_loss(critics, rows, critics.values(rows.next_observations), 0.9).detach()))
        assert (losses[0] != losses[1]) == poisoned


@pytest.mark.parametrize("kind", ["iql", "sarsa"])
@pytest.mark.parametrize("ending", ["terminal", "timeout"])
def test_training_never_looks_behind_a_terminal(kind: Any, ending: str) -> None:
    """Whole trainers on two datasets that differ only behind the last row of each episode."""
    results = []
    for poison in (0.0, 50.0):
        base = chain_transitions(ending)
        successors = base.next_observations.copy()
        successors[base.terminals | base.timeouts] += poison
        data = make_data(
            make_transitions(
                base.observations, base.actions, base.rewards, successors, base.terminals, base.timeouts
            )
        )
        results.append(parameters_of(fit(data, make_config(kind=kind, steps=8, monte_carlo_steps=2))))
    assert same_bits(*results) == (ending == "terminal")


def bandit_data() -> OfflineData:
    """One state forever, two actions played equally often, r(a) = a in {0, 1}; episodes end by timeouts."""
    rows = 400
    actions = np.random.default_rng(0).permutation(np.arange(rows) % 2).astype(np.float32)
    states = np.ones((rows, 1))
    return make_data(
        make_transitions(
            states, actions[:, None], actions, states, np.zeros(rows), np.arange(rows) % 40 == 39
        )
    )


@pytest.mark.parametrize(("kind", "expectile"), [("iql", 0.7), ("iql", 0.5), ("iql", 0.9), ("sarsa", 0.7)])
def test_a_bandit_loop_has_the_value_of_its_expectile(kind: Any, expectile: float) -> None:
    """V = expectile / (1 - discount), Q(a) = a + discount V; SARSA knows no expectile: 0.5."""
    config = make_config(
        kind=kind, expectile=expectile, v_hidden=(16,), q_hidden=(16,), refresh_every=20, steps=800
    )
    critics = fit(bandit_data(), config)
    value = (expectile if kind == "iql" else 0.5) / (1 - 0.9)
    one = torch.ones(2, 1)
    # The last steps of 2.5e-4 still jitter; Monte-Carlo returns also depend on the order of the actions.
    assert critics.values(one)[0].item() == pytest.approx(value, rel=0.01 if kind == "iql" else 0.02)
    both = critics.q_values(one, torch.tensor([[0.0], [1.0]])).detach().numpy()
    np.testing.assert_allclose(both, np.tile([0.9 * value, 1 + 0.9 * value], (2, 1)), rtol=0.02)


def chain_transitions(ending: str) -> Any:
    """Three states in a ring; r = state + 0.5 a, a = -1 or 1 equally often; all episodes have 7 steps."""
    rows = 420
    state = np.arange(rows) % 3
    g, actions = np.random.default_rng(0), np.empty(rows)
    for number in range(3):
        actions[number::3] = g.permutation(np.tile([-1.0, 1.0], rows // 6))
    ends = np.arange(rows) % 7 == 6
    observations = np.eye(3)[state]
    other = np.zeros(rows, bool)
    terminals, timeouts = (ends, other) if ending == "terminal" else (other, ends)
    return make_transitions(
        observations, actions[:, None], state + 0.5 * actions, following(observations), terminals, timeouts
    )


def chain_data() -> OfflineData:
    return make_data(chain_transitions("timeout"))


@pytest.mark.parametrize("kind", ["sarsa", "iql"])
def test_a_chain_cut_by_time_limits_has_the_values_of_the_endless_chain(kind: Any) -> None:
    """V = (I - discount P)^-1 r although every episode is cut after 7 steps.

    Defect 9 of the published code takes timeouts for ends: V would be about half as large here.
    """
    config = make_config(kind=kind, expectile=0.5, refresh_every=50, steps=1000)
    critics = fit(chain_data(), config)
    successor = np.roll(np.eye(3), 1, axis=1)
    value = np.linalg.solve(np.eye(3) - 0.9 * successor, np.arange(3.0))
    states = torch.eye(3)
    np.testing.assert_allclose(critics.values(states).detach().numpy(), value, rtol=0.02)
    for action in (-1.0, 1.0):
        q = critics.q_values(states, torch.full((3, 1), action)).detach().numpy()
        expected = np.arange(3.0) + 0.5 * action + 0.9 * (successor @ value)
        np.testing.assert_allclose(q, np.tile(expected, (2, 1)), rtol=0.03)
    cut = fit(make_data(chain_transitions("terminal")), config)  # the same rows, truly ended
    assert cut.values(states).max() < 0.75 * value.min()


def test_refreshed_returns_bootstrap_timeouts_and_not_terminals() -> None:
    observations = np.arange(7.0)[:, None]
    terminals, timeouts = np.zeros(7, bool), np.zeros(7, bool)
    timeouts[2] = terminals[6] = True
    successors = following(observations)
    successors[2], successors[6] = 20.0, 30.0
    rewards = np.arange(1.0, 8.0)
    data = make_data(
        make_transitions(observations, np.zeros((7, 1)), rewards, successors, terminals, timeouts)
    )
    trainer = CriticTrainer(data, make_config(kind="sarsa"), seed=0)
    trainer._refresh_returns()
    tail = trainer.critics.values(torch.tensor([[20.0]])).item()
    expected = []
    for row in range(7):
        end = 2 if row <= 2 else 6
        total = sum(0.9 ** (k - row) * rewards[k] for k in range(row, end + 1))
        expected.append(total + (0.9 ** (end - row + 1) * tail if end == 2 else 0.0))
    np.testing.assert_allclose(trainer.returns.numpy(), expected, rtol=1e-6)


def test_sarsa_takes_the_next_action_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q'(s', a') is asked for the action of the next row; behind a timeout V answers in its place."""
    data = chain_data()
    trainer = CriticTrainer(data, make_config(kind="sarsa"), seed=0)
    index = torch.tensor([0, 5, 6, len(data) - 1])
    monkeypatch.setattr(trainer.critics, "target_min_q", lambda s, a: 100.0 * a[:, 0])
    monkeypatch.setattr(trainer.critics, "values", lambda s: torch.full((len(s),), 7.0))
    seen: list[torch.Tensor] = []

    def watch(critics: Critics, batch: Batch, next_values: torch.Tensor, discount: float) -> torch.Tensor:
        seen.append(next_values)
        return torch.zeros(())

    monkeypatch.setattr("unio4_lib.learning.critics.q_losses", watch)
    trainer._sarsa_losses(data.rows(index), index)
    expected = [100 * data.actions[1, 0].item(), 100 * data.actions[6, 0].item(), 7.0, 7.0]
    assert seen[0].tolist() == expected


def test_values_have_one_unit_everywhere() -> None:
    """min Q is at most each Q, advantages are min Q - V, and clamped actions are what Q sees."""
    critics, batch = make_critics(), make_batch()
    actions = batch.actions * 3
    both = critics.q_values(batch.observations, actions.clamp(-1, 1))
    torch.testing.assert_close(critics.min_q(batch.observations, actions), both.min(dim=0).values)
    torch.testing.assert_close(
        critics.advantages(batch.observations, actions),
        both.min(dim=0).values - critics.values(batch.observations),
    )
    deep = batch.observations.view(2, 3, 2)
    torch.testing.assert_close(critics.values(deep).flatten(), critics.values(batch.observations))
    torch.testing.assert_close(
        critics.min_q(deep, actions.view(2, 3, 1)).flatten(), critics.min_q(batch.observations, actions)
    )


def test_scale_and_shift_are_those_of_the_returns() -> None:
    data = chain_data()
    critics = CriticTrainer(data, make_config(), seed=0).critics
    assert critics.scale.item() == pytest.approx(data.returns.std().item())
    assert critics.shift.item() == pytest.approx(data.returns.mean().item())


def test_the_learning_rate_falls_to_its_share() -> None:
    trainer = CriticTrainer(chain_data(), make_config(steps=10, final_learning_rate_share=0.2), seed=0)
    rates = []
    for _ in range(10):
        rates.append(float(trainer.updates.groups["critics"].rate()) / 5e-3)
        trainer.step()
    np.testing.assert_allclose(rates, [0.2 + 0.8 * (1 - k / 10) for k in range(10)])


def test_evaluation_reports_how_far_values_have_come() -> None:
    data = chain_data()
    trainer = CriticTrainer(data, make_config(steps=400, monte_carlo_steps=400), seed=0)
    before = float(trainer.evaluate()["critics/value_return_correlation"])
    for _ in range(400):
        trainer.step()
    figures = trainer.evaluate()
    assert (
        float(figures["critics/value_return_correlation"]) > before + 0.15
    )  # 0.28; the ends of episodes are invisible in the state
    assert float(figures["critics/value_mean"]) == pytest.approx(
        float(figures["critics/return_mean"]), abs=0.1
    )
    assert not trainer.finished()
