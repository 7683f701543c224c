"""Learned models as environments: against a plain loop, and the contract of every simulator."""

from typing import Any

import numpy as np
import pytest
import torch
from offline_worlds import PointMassModel, make_data, make_transitions, point_mass_transitions
from torch import Tensor

from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.transitions import Transitions
from unio4_lib.judging.dynamics import DynamicsModel, Step
from unio4_lib.judging.model_sim import ModelSim
from unio4_lib.learning.offline_data import OfflineData
from unio4_lib.settings.model import PrepareConfig

LENGTH = 7


def two_units() -> OfflineData:
    """Two observations and one action whose units are neither 1 nor centered: bounds -3 and 1."""
    g = np.random.default_rng(0)
    states = (g.normal(size=(60, 2)) * [5.0, 0.1] + [40.0, -2.0]).astype(np.float32)
    ends = np.arange(60) % 10 == 9
    rows = Transitions.build(
        observations=states,
        actions=g.uniform(-3, 1, (60, 1)).astype(np.float32),
        rewards=g.normal(size=60).astype(np.float32),
        next_observations=np.roll(states, -1, axis=0),
        terminals=np.zeros(60, np.bool_),
        timeouts=ends,
        info=DatasetInfo("Test-v0", {}, (-3.0,), (1.0,), "test"),
    )
    config = PrepareConfig(reward_scaling="none")
    return OfflineData.build(rows, config, discount=0.9, device=torch.device("cpu"))


DATA = two_units()


def learned(members: int = 3) -> DynamicsModel:
    """A random network with everything that a learned one has, its terminations included."""
    model = DynamicsModel(members, 2, 1, (8,), generator=torch.Generator().manual_seed(0))
    model.requires_grad_(False)
    model.target_mean.copy_(torch.tensor([0.1, -0.2, 3.0]))
    model.target_std.copy_(torch.tensor([0.5, 2.0, 4.0]))
    model.net.output.bias[..., -1] -= 2.0  # the termination: one step in eight or so
    model.low.fill_(-2.5)
    model.high.fill_(2.5)
    return model


def make(envs: int = 6, **values: Any) -> ModelSim:
    model = values.pop("model", None) or learned()
    return ModelSim(values.pop("data", DATA), model, envs, **{"length": LENGTH, "noise": 0.0, **values})


def actions_of(sim: ModelSim, steps: int, seed: int = 0) -> np.ndarray:
    """Some beyond the bounds."""
    return np.random.default_rng(seed).uniform(-4, 2, (steps, sim.num_envs, sim.action_dim))


def test_every_step_is_that_of_a_plain_loop() -> None:
    """One environment after the other, in the environment's units; model (i + t) mod M answers."""
    model, mean, std = learned(), DATA.observation_mean.numpy(), DATA.observation_std.numpy()
    sim = make(model=model)
    now = sim.reset(5)
    seen = {"terminals": 0, "timeouts": 0}
    ages = sim.state_dict()["elapsed"]
    survivals: list[tuple[float, bool]] = []
    for t, actions in enumerate(actions_of(sim, 80)):
        result = sim.step(actions)
        for i in range(6):
            state = torch.tensor((now[i] - mean) / std, dtype=torch.float32)
            unit = torch.tensor([np.clip(2 * (actions[i, 0] + 3) / 4 - 1, -1, 1)], dtype=torch.float32)
            who = (i + t) % 3
            heads = model.heads(state.expand(3, 1, 2), unit.expand(3, 1, 1))
            change = heads[0][who, 0] * model.target_std + model.target_mean
            following = (state + change[:2]).clamp(-2.5, 2.5).numpy() * std + mean
            np.testing.assert_allclose(result.next_observations[i], following, rtol=1e-5, atol=1e-5)
            assert result.rewards[i] == pytest.approx(float(change[2]), rel=1e-4, abs=1e-5)
            survivals.append((float(torch.sigmoid(-heads[2][who, 0])), bool(result.terminals[i])))
            ages[i] += 1
            over = ages[i] >= LENGTH
            assert result.timeouts[i] == (over and not result.terminals[i])
            if result.terminals[i] or over:
                ages[i] = 0
                begun = (result.observations[i] - mean) / std
                apart = np.abs(DATA.observations.numpy() - begun).max(axis=1)
                assert apart.min() < 1e-4  # a row of the dataset
            else:
                np.testing.assert_array_equal(result.observations[i], result.next_observations[i])
            seen["terminals"] += result.terminals[i]
            seen["timeouts"] += result.timeouts[i]
        now = result.observations
    assert seen["terminals"] > 20
    assert seen["timeouts"] > 5
    expected = np.mean([1 - survival for survival, _ in survivals])
    ended = np.mean([end for _, end in survivals])
    assert ended == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(survivals)))


class Speakers:
    """Member m pays 10^m, so that a reward tells who answered; the state never changes."""

    members = 3

    def step(self, observations: Tensor, actions: Tensor, noise: Tensor | None, turn: int = 0) -> Step:
        who = (torch.arange(3) + turn) % 3
        ones = torch.ones(observations.shape[:2])
        return Step(observations, (10.0**who)[:, None] * ones, ones)


def test_models_take_turns_also_over_the_ends_of_episodes() -> None:
    sim = make(model=Speakers(), length=2)
    sim.reset(0)
    for t in range(9):
        rewards = sim.step(np.zeros((6, 1))).rewards
        assert rewards.tolist() == [10.0 ** ((i + t) % 3) for i in range(6)]


def test_a_known_termination_is_certain() -> None:
    data = make_data(point_mass_transitions(episodes=10))
    wall: Any = PointMassModel(2, wall=0.9)
    sim = make(20, data=data, model=wall, length=1000, noise=1.0)
    sim.reset(0)
    ends = 0
    for actions in actions_of(sim, 60):
        result = sim.step(actions)
        np.testing.assert_array_equal(result.terminals, np.abs(result.next_observations[:, 0]) >= 0.9)
        ends += int(result.terminals.sum())
    assert ends > 20


def test_without_noise_the_models_mean_is_followed_and_noise_scales() -> None:
    """Only the first step: from then on states differ."""
    results = {}
    for noise in (0.0, 0.5, 1.0):
        sim = make(noise=noise, length=10_000)
        sim.reset(1)
        results[noise] = sim.step(np.full((6, 1), 0.5))
    moved = {noise: results[noise].rewards - results[0.0].rewards for noise in results}
    np.testing.assert_allclose(moved[1.0], 2 * moved[0.5], rtol=1e-4, atol=1e-5)
    assert np.abs(moved[1.0]).min() > 1e-3


def test_noise_has_the_std_that_the_model_claims() -> None:
    """One state, many environments: the spread of rewards is that of the reward's head."""
    g = np.zeros((20, 2), np.float32)
    rows = make_transitions(g, g[:, :1], np.zeros(20), g, np.zeros(20, bool), np.arange(20) % 10 == 9)
    model = learned()
    sim = make(6000, model=model, data=make_data(rows), noise=0.7, length=10_000)
    sim.reset(0)
    rewards = sim.step(np.zeros((6000, 1))).rewards
    zero = torch.zeros(3, 1, 1)
    log_variance = model.heads(zero.expand(3, 1, 2), zero)[1][:, 0, 2]
    for m in range(3):
        claimed = 0.7 * 4.0 * float(torch.exp(0.5 * log_variance[m]))
        assert rewards[m::3].std() == pytest.approx(claimed, rel=0.08)  # 2000 draws: 5 standard errors


def test_equal_seeds_give_equal_episodes_and_others_do_not() -> None:
    def play(seed: int) -> list[np.ndarray]:
        sim = make(noise=1.0)
        return [sim.reset(seed), *(sim.step(actions).observations for actions in actions_of(sim, 10))]

    first, again, other = play(0), play(0), play(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    sim = make(noise=1.0)  # a second reset forgets what was
    sim.reset(3)
    sim.step(actions_of(sim, 1)[0])
    repeated = [sim.reset(0), *(sim.step(actions).observations for actions in actions_of(sim, 10))]
    assert all(np.array_equal(a, b) for a, b in zip(first, repeated, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_episodes_begins_where_recorded_ones_did(share: float) -> None:
    """Reset and every later beginning alike; one row in ten is a first one."""
    sim = make(2000, model=Speakers(), length=1, initial=share)
    firsts = DATA.observations[DATA.starts].double().numpy() * DATA.observation_std.numpy()
    firsts = firsts + DATA.observation_mean.numpy()
    begun = [sim.reset(0), sim.step(np.zeros((sim.num_envs, 1))).observations]
    for states in begun:
        distance = np.abs(states[:, None] - firsts[None]).max(axis=2).min(axis=1)
        found = float((distance < 1e-4).mean())
        assert found == pytest.approx(share + (1 - share) / 10, abs=0.03)  # 4 standard errors


def test_episodes_begin_at_ages_of_their_own() -> None:
    """All of one age would end together, and no batch would see another."""
    sim = make(300, model=Speakers(), length=10)
    sim.reset(0)
    ended = [int(sim.step(np.zeros((300, 1))).timeouts.sum()) for _ in range(20)]
    assert sum(ended[:10]) == sum(ended[10:]) == 300
    assert min(ended) > 10
    assert ended[:10] == ended[10:]


def test_it_offers_what_a_simulator_offers() -> None:
    sim = make(7)  # rounded up to whole models
    assert (sim.num_envs, sim.observation_dim, sim.action_dim, sim.max_episode_steps) == (9, 2, 1, LENGTH)
    assert (sim.action_low.tolist(), sim.action_high.tolist()) == ([-3.0], [1.0])
    observations = sim.reset(0)
    assert (observations.shape, observations.dtype) == ((9, 2), np.float64)
    result = sim.step(np.zeros((9, 1)))
    assert result.terminals.dtype == result.timeouts.dtype == np.bool_
    assert not (result.terminals & result.timeouts).any()
    with pytest.raises(ValueError, match=r"actions have shape \(6, 1\), expected \(9, 1\)"):
        sim.step(np.zeros((6, 1)))
    with pytest.raises(ValueError, match=r"actions\[4\] is not finite"):
        sim.step(np.where(np.arange(9) == 4, np.nan, 0.0)[:, None])


@pytest.mark.parametrize("stop", [1, 5, 12])
def test_a_simulation_taken_up_again_is_the_same(stop: int) -> None:
    whole, resumed = make(noise=1.0), make(noise=1.0)
    actions = actions_of(whole, 20)
    whole.reset(0)
    for row in actions[:stop]:
        whole.step(row)
    state = whole.state_dict()
    expected = [whole.step(row) for row in actions[stop:]]
    resumed.reset(9)
    resumed.step(actions[0])
    resumed.load_state_dict(state)
    for row, step in zip(actions[stop:], expected, strict=True):
        found = resumed.step(row)
        for name in step.__slots__:
            np.testing.assert_array_equal(getattr(found, name), getattr(step, name))
