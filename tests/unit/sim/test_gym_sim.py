"""The simulator for any Gymnasium environment against a plain loop."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from unio4_lib.data.flatten import sorted_space
from unio4_lib.errors import InputError
from unio4_lib.sim.batch import NativeSim
from unio4_lib.sim.gym import GymSim
from unio4_lib.sim.seeding import env_seed

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")  # version 4 is asked for on purpose


class Walk(gymnasium.Env):
    """A point on a line. Its Dict observation, its end and its own truncation are easy to foresee."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, observation_space: gymnasium.Space | None = None, own_limit: int = 10**9) -> None:
        box = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.observation_space = observation_space or spaces.Dict(position=box, goal=box)
        self.own_limit = own_limit

    def _observation(self) -> dict[str, np.ndarray]:
        return {"position": np.array([self.position]), "goal": np.array([3.0])}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.position, self.time = self.np_random.uniform(), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.position, self.time = self.position + float(action[0]), self.time + 1
        done = self.position > 3.0
        return self._observation(), float(done), done, self.time >= self.own_limit, {}


gymnasium.register("unio4-test/Walk-v0", entry_point=Walk, max_episode_steps=7)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "unio4-test/Walk-v0"])
def test_equals_a_plain_loop(env_id: str) -> None:
    sim = GymSim(env_id, 3)
    envs = [gymnasium.make(env_id) for _ in range(3)]
    space = sorted_space(envs[0].observation_space)
    flat = [spaces.flatten(space, env.reset(seed=env_seed(1, i))[0]) for i, env in enumerate(envs)]
    np.testing.assert_array_equal(sim.reset(1), flat)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(250):
        actions = rng.uniform(sim.action_low, sim.action_high, (3, 1)).astype(np.float32)
        result = sim.step(actions.astype(np.float64))
        for i, env in enumerate(envs):
            observation, reward, terminated, truncated, _ = env.step(actions[i])
            np.testing.assert_array_equal(result.next_observations[i], spaces.flatten(space, observation))
            assert result.rewards[i] == reward
            assert (result.terminals[i], result.timeouts[i]) == (terminated, truncated and not terminated)
            if terminated or truncated:
                ended += 1
                observation = env.reset()[0]
            np.testing.assert_array_equal(result.observations[i], spaces.flatten(space, observation))
    assert ended >= 3


def test_both_kinds_of_end_and_their_true_final_observations() -> None:
    sim = GymSim("unio4-test/Walk-v0", 2)
    start = sim.reset(0)
    for _ in range(3):
        result = sim.step(np.array([[1.0], [0.0]]))
    assert result.terminals.tolist() == [True, False] and not result.timeouts.any()
    assert result.next_observations[0, 1] > 3 > 1 >= result.observations[0, 1]  # goal, position
    for _ in range(4):
        result = sim.step(np.zeros((2, 1)))
    assert result.timeouts.tolist() == [False, True] and not result.terminals.any()
    np.testing.assert_array_equal(result.next_observations[1], start[1])
    assert result.observations[1, 1] != start[1, 1]


def test_an_environments_own_truncation_is_a_timeout() -> None:
    sim = GymSim("unio4-test/Walk-v0", 1, env_kwargs={"own_limit": 2})
    sim.reset(0)
    assert not sim.step(np.zeros((1, 1))).timeouts[0]
    result = sim.step(np.zeros((1, 1)))
    assert result.timeouts[0] and not result.terminals[0]


def test_agrees_with_the_native_simulator() -> None:
    native, plain = NativeSim("Hopper-v5", 3), GymSim("Hopper-v5", 3)
    np.testing.assert_array_equal(native.reset(4), plain.reset(4))
    rng = np.random.default_rng(0)
    for _ in range(100):
        actions = rng.uniform(-1.5, 1.5, (3, 3)).astype(np.float32).astype(np.float64)
        a, b = native.step(actions), plain.step(actions)
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.next_observations, b.next_observations)
        np.testing.assert_array_equal(a.terminals, b.terminals)
        np.testing.assert_allclose(a.rewards, b.rewards, atol=1e-6)  # control cost in float32 there


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Reacher-v4", "Ant-v5"])
def test_saved_mujoco_state_continues_bit_for_bit(env_id: str) -> None:
    sim = GymSim(env_id, 2, env_kwargs={"max_episode_steps": 30})
    sim.reset(0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(sim.action_low, sim.action_high, (60, 2, sim.action_dim))
    for row in actions[:25]:
        sim.step(row)
    saved = sim.state_dict()
    fresh = GymSim(env_id, 2, env_kwargs={"max_episode_steps": 30})
    expected = [sim.step(row) for row in actions[25:]]
    fresh.load_state_dict(saved)
    for row, want in zip(actions[25:], expected, strict=True):
        got = fresh.step(row)
        np.testing.assert_array_equal(got.observations, want.observations)
        np.testing.assert_array_equal(got.rewards, want.rewards)
        np.testing.assert_array_equal(got.timeouts, want.timeouts)
    fresh.load_state_dict(saved)  # a state can be loaded twice: nothing in it was changed
    np.testing.assert_array_equal(fresh.step(actions[25]).rewards, expected[0].rewards)


def test_a_state_can_be_saved_at_every_moment() -> None:
    sim, fresh = GymSim("Ant-v5", 1), GymSim("Ant-v5", 1)
    sim.reset(0)
    contacts = set()
    for row in np.random.default_rng(0).uniform(-1, 1, (40, 1, sim.action_dim)):
        fresh.load_state_dict(sim.state_dict())
        want, got = sim.step(row), fresh.step(row)
        np.testing.assert_array_equal(got.observations, want.observations)
        np.testing.assert_array_equal(got.rewards, want.rewards)
        contacts.add(sim._envs[0].unwrapped.data.ncon)
    assert len(contacts) > 1  # memory that the simulator uses for contacts grew and shrank


def test_other_states_cannot_be_saved() -> None:
    with pytest.raises(NotImplementedError, match="Pendulum-v1: only the state of MuJoCo"):
        GymSim("Pendulum-v1", 1).state_dict()


@pytest.mark.parametrize(
    "space",
    [spaces.Box(0, 255, (8, 8, 3), np.uint8), spaces.Discrete(3), spaces.Dict(a=spaces.Discrete(2))],
)
def test_observations_that_are_not_flat_are_refused(space: gymnasium.Space) -> None:
    with pytest.raises(InputError, match="expected a flat Box or a Dict of flat Boxes"):
        GymSim("unio4-test/Walk-v0", 1, env_kwargs={"observation_space": space})


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(InputError, match=r"'CartPole-v1' has action space Discrete\(2\), expected a flat"):
        GymSim("CartPole-v1", 1)


def test_inactive_environments_stand_still() -> None:
    sim = GymSim("Pendulum-v1", 2)
    start = sim.reset(0)
    result = sim.step_active(np.ones((2, 1)), np.array([True, False]))
    assert not np.array_equal(result.observations[0], start[0])
    np.testing.assert_array_equal(result.observations[1], start[1])
    assert result.rewards[1] == 0
