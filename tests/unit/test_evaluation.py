"""Evaluation on a simulator with known episodes, and the arithmetic of scores."""

from typing import Any

import numpy as np
import pytest

from unio4_lib.data.reference import D4RL_SCORES
from unio4_lib.errors import InputError
from unio4_lib.learning import evaluation
from unio4_lib.learning.evaluation import (
    EpisodeStats,
    evaluate,
    normalized_score,
    reference_scores,
)
from unio4_lib.sim import StepResult, make_sim
from unio4_lib.sim.base import Array, Flags


class ScriptedSim:
    """Environment ``i`` runs through episodes of the lengths ``script[i]``; each step pays 1."""

    env_id, observation_dim, action_dim, max_episode_steps = "Scripted-v0", 1, 1, None
    action_low, action_high = np.array([-1.0]), np.array([1.0])

    def __init__(self, script: list[list[int]], reward: float = 1.0) -> None:
        self.script, self.reward, self.num_envs = script, reward, len(script)
        self.steps, self.simulated, self.closed = 0, 0, False

    def reset(self, seed: int) -> Array:
        self.episode = [0] * self.num_envs
        self.left = [lengths[0] for lengths in self.script]
        return np.zeros((self.num_envs, 1))

    def step(self, actions: Array) -> StepResult:
        return self._step(np.ones(self.num_envs, dtype=np.bool_))

    def _step(self, active: Flags) -> StepResult:
        self.steps, self.simulated = self.steps + 1, self.simulated + int(active.sum())
        ended = np.zeros(self.num_envs, dtype=np.bool_)
        for i in np.flatnonzero(active):
            self.left[i] -= 1
            if self.left[i] == 0:
                ended[i] = True
                self.episode[i] += 1
                self.left[i] = self.script[i][self.episode[i] % len(self.script[i])]
        zeros = np.zeros((self.num_envs, 1))
        even = np.arange(self.num_envs) % 2 == 0
        return StepResult(zeros, np.where(active, self.reward, 0.0), zeros, ended & even, ended & ~even)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class MaskedScriptedSim(ScriptedSim):
    def step_active(self, actions: Array, active: Flags) -> StepResult:
        return self._step(active)


def stand_still(observations: Array) -> Array:
    return np.zeros((len(observations), 1))


SCRIPT = [[2, 2, 2, 2, 2], [20, 20], [5, 7, 9]]


@pytest.mark.parametrize("kind", [ScriptedSim, MaskedScriptedSim])
def test_short_episodes_are_not_over_counted(kind: type[ScriptedSim]) -> None:
    stats = evaluate(stand_still, kind(SCRIPT), episodes=6, seed=0)
    # Taking the first six episodes to end would give 2, 2, 5, 2, 2, 2.
    assert stats.lengths.tolist() == [2, 2, 20, 20, 5, 7]
    np.testing.assert_array_equal(stats.returns, stats.lengths)


def test_remaining_episodes_go_to_the_first_environments() -> None:
    stats = evaluate(stand_still, ScriptedSim(SCRIPT), episodes=5, seed=0)
    assert stats.lengths.tolist() == [2, 2, 20, 20, 5]


def test_stops_as_soon_as_every_quota_is_full() -> None:
    sim = ScriptedSim(SCRIPT)
    evaluate(stand_still, sim, episodes=3, seed=0)
    assert sim.steps == 20
    evaluate(stand_still, sim, episodes=1, seed=0)
    assert sim.steps == 22


def test_finished_environments_are_not_simulated() -> None:
    sim = MaskedScriptedSim(SCRIPT)
    evaluate(stand_still, sim, episodes=3, seed=0)
    assert sim.simulated == 2 + 20 + 5


def test_a_made_simulator_is_closed() -> None:
    made: list[ScriptedSim] = []

    def factory(num_envs: int) -> ScriptedSim:
        made.append(ScriptedSim([[3]] * num_envs))
        return made[-1]

    stats = evaluate(stand_still, factory, episodes=70, seed=0)
    assert len(stats.returns) == 70
    assert made[0].num_envs == 64 and made[0].closed


def test_return_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="Scripted-v0: return of episode 0 in environment 0 is nan"):
        evaluate(stand_still, ScriptedSim([[2], [3]], reward=np.nan), episodes=2, seed=0)


def test_an_episode_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "LONGEST_EPISODE", 9)
    with pytest.raises(
        InputError, match=r"'Scripted-v0' has no time limit.*in 9 steps: set max_episode_steps"
    ):
        evaluate(stand_still, ScriptedSim([[2, 2], [10]]), episodes=2, seed=0)
    assert evaluate(stand_still, ScriptedSim([[2, 2], [9]]), episodes=2, seed=0).lengths.tolist() == [2, 9]
    limited = ScriptedSim([[30]])
    limited.max_episode_steps = 30  # type: ignore[assignment]
    assert evaluate(stand_still, limited, episodes=1, seed=0).lengths.tolist() == [30]


def test_long_rows_that_do_not_count_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "LONGEST_EPISODE", 9)
    stats = evaluate(stand_still, ScriptedSim([[5] * 4, [8, 99]]), episodes=3, seed=0)
    assert stats.lengths.tolist() == [5, 5, 8]


def test_no_episodes_is_an_error() -> None:
    with pytest.raises(ValueError, match="episodes is 0, expected at least 1"):
        evaluate(stand_still, ScriptedSim(SCRIPT), episodes=0, seed=0)


def test_real_simulators_give_the_same_episodes() -> None:
    weights = np.random.default_rng(0).normal(scale=0.3, size=(11, 3))

    def act(observations: Array) -> Array:
        return np.tanh(observations @ weights).astype(np.float32).astype(np.float64)

    one = evaluate(act, make_sim("Hopper-v5", 6), episodes=6, seed=1)
    same = evaluate(act, make_sim("Hopper-v5", 6, backend="gym"), episodes=6, seed=1)
    other = evaluate(act, make_sim("Hopper-v5", 6), episodes=6, seed=2)
    np.testing.assert_array_equal(one.lengths, same.lengths)
    np.testing.assert_allclose(one.returns, same.returns, atol=1e-4)  # control cost in float32 there
    assert not np.isclose(one.returns, other.returns).any()


def test_statistics() -> None:
    stats = EpisodeStats(np.array([1.0, 2.0, 3.0, 6.0]), np.array([1, 2, 3, 6]))
    assert stats.mean == 3.0
    assert stats.stderr == pytest.approx(np.sqrt((4 + 1 + 0 + 9) / 3) / 2)
    low, high = stats.bootstrap_interval()
    assert 1.0 <= low < 3.0 < high <= 6.0
    narrow = stats.bootstrap_interval(level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert stats.bootstrap_interval(seed=0) == (low, high)
    assert EpisodeStats(np.array([4.0]), np.array([1])).stderr == 0.0


def test_bootstrap_interval_covers() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = EpisodeStats(rng.normal(size=30), np.ones(30, dtype=np.int64)).bootstrap_interval()
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 200 <= 0.99  # 95 % nominal; a percentile interval is slightly short


@pytest.mark.parametrize("family", D4RL_SCORES)
def test_references_are_0_and_100(family: str) -> None:
    low, high = D4RL_SCORES[family]
    assert normalized_score(low, low, high) == 0.0
    assert normalized_score(high, low, high) == pytest.approx(100.0)
    assert normalized_score((low + high) / 2, low, high) == pytest.approx(50.0)


def test_references_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the first to be smaller"):
        normalized_score(0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("env_id", "family"),
    [
        ("Hopper-v5", "hopper"),
        ("HalfCheetah-v4", "halfcheetah"),
        ("hopper-medium-v2", "hopper"),
        ("mujoco/walker2d/medium-v0", "walker2d"),
        ("AdroitHandPen-v1", "pen"),
        ("D4RL/door/human-v2", "door"),
        ("AntMaze_UMaze-v5", "antmaze"),
        ("antmaze-large-play-v2", "antmaze"),
        ("Ant-v5", "ant"),
        ("FrankaKitchen-v1", "kitchen"),
    ],
)
def test_family_of_an_id(env_id: str, family: str) -> None:
    assert reference_scores(env_id) == D4RL_SCORES[family]


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Humanoid-v5", "", "mujoco/pusher/expert-v0"])
def test_no_reference(env_id: str) -> None:
    assert reference_scores(env_id) is None
