from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from unio4_lib.data import checks
from unio4_lib.data.normalize import (
    discounted_returns,
    observation_statistics,
    running_return_std,
    scale_rewards,
)
from unio4_lib.data.transitions import Transitions

LENGTHS = (4, 1, 7, 3, 64, 2)


def plain_returns(
    rewards: np.ndarray, offsets: np.ndarray, discount: float, bootstrap: np.ndarray | None = None
) -> np.ndarray:
    returns = np.zeros(len(rewards))
    for episode in range(len(offsets) - 1):
        following = 0.0 if bootstrap is None else float(bootstrap[episode])
        for row in range(offsets[episode + 1] - 1, offsets[episode] - 1, -1):
            following = float(rewards[row]) + discount * following
            returns[row] = following
    return returns


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("with_bootstrap", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, (1,), (1, 1, 1), (257,), (128, 129, 1)])
def test_returns_equal_the_plain_loop(
    discount: float, with_bootstrap: bool, lengths: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(3)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rewards = generator.normal(size=offsets[-1]).astype(np.float32)
    bootstrap = generator.normal(size=len(lengths)) if with_bootstrap else None
    found = discounted_returns(rewards, offsets, discount, bootstrap)
    np.testing.assert_allclose(
        found, plain_returns(rewards, offsets, discount, bootstrap), rtol=0, atol=1e-10
    )


def test_hand_made_returns() -> None:
    found = discounted_returns(np.array([1.0, 2, 3, 4]), np.array([0, 2, 4]), 0.5, np.array([0.0, 8.0]))
    np.testing.assert_array_equal(found, [2, 2, 7, 8])


def test_constant_reward_with_the_true_value_behind_a_timeout_is_that_value() -> None:
    offsets = np.array([0, 5, 1005])
    found = discounted_returns(np.ones(1005), offsets, 0.99, np.full(2, 100.0))
    np.testing.assert_allclose(found, 100.0)


def test_bootstrap_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one per episode"):
        discounted_returns(np.ones(4), np.array([0, 2, 4]), 0.9, np.ones(4))


def test_statistics_equal_numpy_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "BLOCK_ROWS", 7)
    observations = np.random.default_rng(0).normal(1e3, [1, 10, 100], size=(100, 3)).astype(np.float32)
    statistics = observation_statistics(observations)
    np.testing.assert_allclose(statistics.mean, observations.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, observations.std(axis=0, dtype=np.float64), rtol=1e-6)
    assert statistics.mean.dtype == statistics.std.dtype == np.float32
    normalized = statistics.apply(observations)
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(normalized.std(axis=0), 1, atol=1e-3)


def test_constant_dimensions_become_exactly_0_and_noise_is_not_blown_up() -> None:
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(1001, 3)).astype(np.float32)
    observations[:, 1] = 0.1
    observations[:, 2] = 5 + 1e-6 * generator.normal(size=1001)
    statistics = observation_statistics(observations)
    normalized = statistics.apply(observations)
    assert (normalized[:, 1] == 0).all()
    assert np.abs(normalized[:, 2]).max() < 0.02
    np.testing.assert_array_equal(statistics.std[1:], np.float32(1e-3))
    assert observation_statistics(observations, eps=0.5).std[1] == 0.5


def test_reward_scales(make_transitions: Callable[..., Transitions]) -> None:
    data = make_transitions(LENGTHS)
    np.testing.assert_array_equal(scale_rewards(data, "none").rewards, data.rewards)
    number = scale_rewards(data, "number", number=0.25)
    np.testing.assert_array_equal(number.rewards, data.rewards / 4)
    normal = scale_rewards(data, "normal")
    assert normal.factor is not None
    returns = replace(data, rewards=normal.rewards).episode_returns()
    assert returns.max() - returns.min() == pytest.approx(1000, rel=1e-5)
    np.testing.assert_allclose(normal.rewards, data.rewards * normal.factor, rtol=1e-6)
    assert {scale_rewards(data, name).rewards.dtype for name in ("none", "normal", "dynamic")} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("reward", [0.0, 1.0, -0.1])
def test_normal_leaves_rewards_alone_where_all_episodes_return_the_same(
    reward: float, make_transitions: Callable[..., Transitions]
) -> None:
    data = replace(make_transitions((3, 3)), rewards=np.full(6, reward, np.float32))
    scaled = scale_rewards(data, "normal")
    np.testing.assert_array_equal(scaled.rewards, data.rewards)
    assert scaled.factor == 1.0


def test_rounding_is_no_range_of_returns(make_transitions: Callable[..., Transitions]) -> None:
    rewards = np.full(6, 0.1, np.float32)
    rewards[0] = np.nextafter(rewards[0], np.float32(1))
    data = replace(make_transitions((3, 3)), rewards=rewards)
    assert data.episode_returns()[0] != data.episode_returns()[1]
    assert scale_rewards(data, "normal").factor == 1.0
    rewards[0] = 0.2
    assert scale_rewards(data, "normal").factor == pytest.approx(1e4, rel=1e-5)


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_dynamic_equals_a_plain_welford_loop(
    shift: float, make_transitions: Callable[..., Transitions]
) -> None:
    data = make_transitions(LENGTHS)
    data = replace(data, rewards=data.rewards + np.float32(shift))
    mean, squares, running, expected = 0.0, 1.0, 0.0, []
    starts = set(data.episode_offsets.tolist())
    for row, reward in enumerate(data.rewards.tolist()):
        running = reward + (0.0 if row in starts else 0.9 * running)
        delta = running - mean
        mean += delta / (row + 1)
        # The first value is its own mean and adds nothing.
        squares += delta * (running - mean)
        expected.append(np.sqrt(squares / (row + 1)))
    np.testing.assert_allclose(
        running_return_std(data.rewards, data.episode_offsets, 0.9), expected, rtol=1e-6
    )
    scaled = scale_rewards(data, "dynamic", discount=0.9)
    np.testing.assert_allclose(scaled.rewards, data.rewards / expected, rtol=1e-5)
    assert scaled.factor is None
