"""BAQ as it was reconstructed: TD3+BC without its parts, weights by distance, and how they fade."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from bandits import made, same, some_rows, states
from offline_worlds import make_data, make_transitions, point_mass_transitions

from unio4_lib.learning.offline_data import Batch, OfflineData
from unio4_lib.methods import baq, td3_bc

FREE: dict[str, Any] = {"sensitivity": 0.0, "consistency": 0.0, "imitation_online": 0.5}


@pytest.fixture(scope="module")
def data() -> OfflineData:
    return make_data(point_mass_transitions(episodes=20))


def updated(learner: Any, data: OfflineData, steps: range) -> None:
    for step in steps:
        learner.update(data.rows(torch.arange(32) * (step + 3)))


def learned(learner: Any) -> list[torch.Tensor]:
    return states(learner.q, learner.policy, learner.slow_policy)


def online(data: OfflineData, **own: Any) -> Any:
    learner = made(baq.ROOM, data, **own)
    updated(learner, data, range(4))
    learner.go_online()
    return learner


def test_without_its_parts_it_is_td3_bc_to_the_bit_offline_and_online(data: OfflineData) -> None:
    free, plain, usual = made(baq.ROOM, data, **FREE), made(td3_bc.ROOM, data), made(baq.ROOM, data)
    for learner in (free, plain, usual):
        updated(learner, data, range(4))
    assert same(learned(usual), learned(plain))  # offline with all of them
    for learner in (free, plain, usual):
        learner.go_online()
        updated(learner, data, range(4, 8))
    assert same(learned(free), learned(plain))
    assert not same(learned(usual), learned(plain))


def test_each_part_alone_changes_what_is_its_own(data: OfflineData) -> None:
    def after_two(**own: Any) -> Any:
        learner = online(data, **(FREE | own))
        updated(learner, data, range(2))
        return learner

    plain, weighted, held = after_two(), after_two(sensitivity=1.0), after_two(consistency=1.0)
    assert not same(states(plain.q.q), states(weighted.q.q))
    assert same(states(plain.q.q), states(held.q.q))
    assert not same(states(plain.policy), states(held.policy))


def test_the_behavior_is_cloned_offline_and_stays_online(data: OfflineData) -> None:
    learner = made(baq.ROOM, data)
    group = learner.updates.groups["behavior"]
    assert group.share is not None
    shares = [float(group.share(torch.tensor(float(steps)))) for steps in (0, 200, 400)]
    assert shares == pytest.approx([1.0, 0.5, 1.0])
    batch = some_rows(data)
    said = learner.update(batch)["learner/behavior_loss"]
    fresh = made(baq.ROOM, data).behavior.distribution(batch.observations)
    assert float(said) == pytest.approx(-fresh.log_prob(batch.actions).mean().item(), rel=1e-5)
    learner.go_online()
    before = states(learner.behavior)
    updated(learner, data, range(2))
    assert same(before, states(learner.behavior))


def test_rows_count_by_their_distance_from_the_behavior(data: OfflineData) -> None:
    """One at no distance, a half at that of the chosen share of the data, and less the farther."""
    learner = online(data, half_at=0.8)
    mean = learner.behavior.distribution(data.observations).mean[0].detach()
    distances = (mean - data.actions).square().mean(dim=1)
    rows = data.rows(torch.arange(len(data)))
    weights = learner.row_weights(rows)
    assert float((weights > 0.5).float().mean()) == pytest.approx(0.8, abs=0.01)
    unit = float(distances.quantile(0.8))
    torch.testing.assert_close(weights, 0.5 ** (distances / unit), rtol=1e-4, atol=1e-6)
    assert torch.equal(learner.row_weights(rows._replace(actions=mean)), torch.ones(len(data)))
    away = torch.tensor([[0.0], [0.1], [-0.2], [0.4]])
    near = learner.row_weights(data.rows(torch.zeros(4, dtype=torch.long))._replace(actions=mean[:1] + away))
    assert (near.diff() < 0).all()
    twice = online(data, half_at=0.8, sensitivity=2.0)
    torch.testing.assert_close(twice.row_weights(rows), weights.square(), rtol=1e-4, atol=1e-6)


def test_q_moves_by_the_weights_of_its_rows(data: OfflineData) -> None:
    """A row that is far away is as good as absent."""
    learner, batch = online(data, target_noise=0.0), some_rows(data)
    errors, weights = learner.q.errors(batch, learner.targets(batch)).sum(dim=0), learner.row_weights(batch)
    told = learner.update(batch)["learner/q_loss"]
    assert float(told) == pytest.approx(float((weights * errors).mean().detach()), rel=1e-5)
    one, other = online(data, sensitivity=1e9), online(data, sensitivity=1e9)
    far = batch._replace(rewards=batch.rewards + 5.0)
    assert float(one.row_weights(batch).max()) == 0.0
    one.update(batch)
    other.update(far)
    assert same(states(one.q.q), states(other.q.q))


def test_the_policy_is_held_near_the_behavior_at_first(data: OfflineData) -> None:
    learner, batch = online(data, consistency=0.7, imitation_online=0.2), some_rows(data)
    actions = learner.policy.distribution(batch.observations).mean[0]
    mean = learner.behavior.distribution(batch.observations).mean[0]
    apart, off = (actions - mean).square().mean(dim=1), (actions - batch.actions).square().mean(dim=1)
    torch.testing.assert_close(learner.policy_penalty(batch, actions), 0.2 * off + 0.7 * apart)


def test_doubt_fades_along_a_line_and_is_remembered(data: OfflineData) -> None:
    """Over half of a hundred online updates."""
    learner = made(baq.ROOM, data)
    assert learner.doubt() == 0.0
    group = learner.updates.groups["q"]
    group.taken = 1000
    learner.go_online()
    found = []
    for taken in (1000, 1025, 1050, 5000):
        group.taken = taken
        found.append(float(learner.doubt()))
    assert found == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert torch.equal(learner.row_weights(some_rows(data)), torch.ones(6))
    group.taken = 1025
    other = made(baq.ROOM, data)
    other.go_online()
    other.load_state_dict(learner.state_dict())
    assert (float(other.doubt()), other.sharpness) == (pytest.approx(0.5), learner.sharpness)


def test_wrong_rewards_far_from_the_behavior_hurt_less() -> None:
    """Near the behavior rewards are known; elsewhere rows lie, and a small network cannot fit both."""
    g = np.random.default_rng(0)
    count = 512
    near, ends = np.clip(g.normal(0.0, 0.1, (count, 1)), -1.0, 1.0), np.ones(count, np.bool_)
    rewards, nothing = near[:, 0], np.zeros((count, 1))
    rows = make_data(make_transitions(nothing, near, rewards, nothing, ends, np.zeros_like(ends)))
    truth, draws = rows.rows(torch.arange(count)), torch.Generator().manual_seed(0)
    lies = truth._replace(actions=truth.actions + 1.0, rewards=10.0 * torch.randn(count, generator=draws))
    mixed = Batch(*(torch.cat([a[:64], b[:64]]) for a, b in zip(truth, lies, strict=True)))

    def error(sensitivity: float) -> float:
        own = {"learning_rate": 1e-2, "sensitivity": sensitivity, "layer_norm": False}
        learner = made(baq.ROOM, rows, **own)
        for _ in range(150):
            learner.update(truth)
        learner.go_online()
        learner.fade = math.inf
        for _ in range(100):
            learner.update(mixed)
        return float(learner.q.errors(truth, truth.rewards).mean().detach())

    assert error(1.0) < 0.2 * error(0.0)
