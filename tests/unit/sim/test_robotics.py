"""The environments of gymnasium-robotics that D4RL's datasets come from."""

import re
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces

from unio4_lib.data.flatten import sorted_space
from unio4_lib.errors import InputError
from unio4_lib.sim import make_sim
from unio4_lib.sim.gym import GymSim
from unio4_lib.sim.seeding import env_seed

pytest.importorskip("gymnasium_robotics", reason='needs pip install "unio4[robotics]"')

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")

IDS = ["AdroitHandPen-v1", "AdroitHandDoor-v1", "AntMaze_UMaze-v5", "PointMaze_UMaze-v3"]
WIDTHS = dict(zip(IDS, (45, 39, 109, 8), strict=True))


def random_actions(sim: Any, steps: int) -> np.ndarray:
    shape = (steps, sim.num_envs, sim.action_dim)
    return np.random.default_rng(0).uniform(sim.action_low, sim.action_high, shape).astype(np.float32)


@pytest.mark.parametrize("env_id", IDS)
def test_equals_a_plain_loop(env_id: str) -> None:
    sim = make_sim(env_id, 2, env_kwargs={"max_episode_steps": 12})
    assert type(sim) is GymSim and sim.observation_dim == WIDTHS[env_id]
    envs = [gymnasium.make(env_id, max_episode_steps=12) for _ in range(2)]
    space = sorted_space(envs[0].observation_space)
    starts = [spaces.flatten(space, env.reset(seed=env_seed(3, i))[0]) for i, env in enumerate(envs)]
    np.testing.assert_array_equal(sim.reset(3), starts)
    for actions in random_actions(sim, 30):
        result = sim.step(actions.astype(np.float64))
        for i, env in enumerate(envs):
            observation, reward, terminated, truncated, _ = env.step(actions[i])
            np.testing.assert_array_equal(result.next_observations[i], spaces.flatten(space, observation))
            assert result.rewards[i] == reward
            assert (result.terminals[i], result.timeouts[i]) == (terminated, truncated and not terminated)
            if terminated or truncated:
                observation = env.reset()[0]
            np.testing.assert_array_equal(result.observations[i], spaces.flatten(space, observation))


@pytest.mark.parametrize("env_id", IDS)
def test_saved_state_continues_bit_for_bit(env_id: str) -> None:
    sim, fresh = (make_sim(env_id, 2, env_kwargs={"max_episode_steps": 12}) for _ in range(2))
    sim.reset(0)
    actions = random_actions(sim, 40).astype(np.float64)
    for row in actions[:17]:
        sim.step(row)
    fresh.load_state_dict(sim.state_dict())
    for row in actions[17:]:  # goals of later episodes come from the restored generators
        want, got = sim.step(row), fresh.step(row)
        np.testing.assert_array_equal(got.observations, want.observations)
        np.testing.assert_array_equal(got.rewards, want.rewards)


@pytest.mark.parametrize("env_id", ["FrankaKitchen-v1", "FetchReach-v4", "HandReach-v3"])
def test_what_does_not_fit_this_mujoco_is_said(env_id: str) -> None:
    try:
        sim = make_sim(env_id, 1)
    except InputError as error:
        assert re.search(rf"{env_id}.*does not fit MuJoCo {mujoco.__version__}.*\"mujoco==", str(error))
        assert "\n" not in str(error)
    else:
        assert sim.reset(0).shape == (1, sim.observation_dim)
