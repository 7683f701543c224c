"""The native simulator against Gymnasium itself, step by step."""

import json
from typing import Any

import gymnasium
import numpy as np
import pytest

from unio4_lib.sim.batch import NativeSim, has_native
from unio4_lib.sim.seeding import env_seed
from unio4_lib.sim.tasks import TASKS

NATIVE_IDS = [
    f"{name}-v{version}"
    for name in (
        "Ant",
        "HalfCheetah",
        "Hopper",
        "Humanoid",
        "HumanoidStandup",
        "InvertedDoublePendulum",
        "InvertedPendulum",
        "Pusher",
        "Reacher",
        "Swimmer",
        "Walker2d",
    )
    for version in (4, 5)
    if (name, version) != ("Pusher", 4)  # refuses to run on MuJoCo 3 and later
]

pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")  # version 4 is asked for on purpose

# Arguments that move every parameter that a task reads away from its default.
VARIANTS: dict[str, dict[str, Any]] = {
    "Ant-v5": {
        "forward_reward_weight": 2.0,
        "ctrl_cost_weight": 0.3,
        "contact_cost_weight": 0.01,
        "healthy_reward": 0.7,
        "healthy_z_range": (0.4, 0.8),
        "contact_force_range": (-0.5, 0.4),
        "reset_noise_scale": 0.2,
        "exclude_current_positions_from_observation": False,
        "main_body": 2,
    },
    "Ant-v4": {"use_contact_forces": True, "healthy_z_range": (0.4, 0.8)},
    "HalfCheetah-v5": {
        "forward_reward_weight": 0.5,
        "ctrl_cost_weight": 0.2,
        "reset_noise_scale": 0.3,
        "exclude_current_positions_from_observation": False,
        "frame_skip": 3,
    },
    "Hopper-v5": {
        "forward_reward_weight": 3.0,
        "ctrl_cost_weight": 0.1,
        "healthy_reward": 2.0,
        "healthy_state_range": (-4.0, 4.0),
        "healthy_z_range": (0.9, 1.6),
        "healthy_angle_range": (-0.1, 0.15),
        "reset_noise_scale": 0.02,
        "exclude_current_positions_from_observation": False,
    },
    "Hopper-v4": {"terminate_when_unhealthy": False},
    "Humanoid-v5": {
        "contact_cost_weight": 1e-3,
        "contact_cost_range": (0.0, 3.0),
        "healthy_z_range": (1.2, 1.5),
        "include_cvel_in_observation": False,
        "exclude_current_positions_from_observation": False,
    },
    "HumanoidStandup-v5": {
        "ctrl_cost_weight": 0.5,
        "impact_cost_weight": 1e-3,
        "impact_cost_range": (0.0, 2.0),
        "include_qfrc_actuator_in_observation": False,
    },
    "InvertedDoublePendulum-v5": {"healthy_reward": 3.0, "reset_noise_scale": 0.2},
    "InvertedPendulum-v5": {"reset_noise_scale": 0.15},
    "Pusher-v5": {
        "reward_near_weight": 2.0,
        "reward_dist_weight": 3.0,
        "reward_control_weight": 4.0,
    },
    "Reacher-v5": {"reward_dist_weight": 3.0, "reward_control_weight": 4.0},
    "Swimmer-v5": {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.1},
    "Walker2d-v5": {"terminate_when_unhealthy": False, "healthy_z_range": (1.0, 1.3)},
    "Walker2d-v4": {"healthy_angle_range": (-0.2, 0.3), "healthy_reward": 2.0},
}


def random_actions(sim: NativeSim, steps: int) -> np.ndarray:
    shape = (steps, sim.num_envs, sim.action_dim)
    return np.random.default_rng(0).uniform(sim.action_low, sim.action_high, shape)


def compare_with_gymnasium(env_id: str, steps: int, num_envs: int, kwargs: dict[str, Any]) -> int:
    """Run both side by side; every number must be the same bit for bit. Returns episodes ended."""
    sim = NativeSim(env_id, num_envs, env_kwargs=kwargs)
    envs = [gymnasium.make(env_id, disable_env_checker=True, **kwargs) for _ in range(num_envs)]
    starts = [env.reset(seed=env_seed(7, i))[0] for i, env in enumerate(envs)]
    np.testing.assert_array_equal(sim.reset(7), starts)
    ended = 0
    for actions in random_actions(sim, steps):
        result = sim.step(actions)
        for i, env in enumerate(envs):
            observation, reward, terminated, truncated, _ = env.step(actions[i])
            np.testing.assert_array_equal(result.next_observations[i], observation)
            # A sum over many squares may be added up in another order on another machine.
            np.testing.assert_allclose(result.rewards[i], reward, rtol=1e-12, atol=1e-12)
            assert result.terminals[i] == terminated
            assert result.timeouts[i] == (truncated and not terminated)
            if terminated or truncated:
                ended += 1
                observation = env.reset()[0]
            np.testing.assert_array_equal(result.observations[i], observation)
    sim.close()
    return ended


def test_every_task_is_tested() -> None:
    entry_points = {gymnasium.spec(env_id).entry_point for env_id in NATIVE_IDS}
    assert entry_points == {f"{cls.__module__}:{cls.__qualname__}" for cls in TASKS}


@pytest.mark.parametrize("env_id", NATIVE_IDS)
def test_equals_gymnasium_for_2000_steps(env_id: str) -> None:
    ended = compare_with_gymnasium(env_id, steps=400, num_envs=5, kwargs={"max_episode_steps": 90})
    assert ended >= 5 * (400 // 90)


@pytest.mark.parametrize("env_id", list(VARIANTS))
def test_equals_gymnasium_with_other_arguments(env_id: str) -> None:
    compare_with_gymnasium(env_id, steps=60, num_envs=3, kwargs=VARIANTS[env_id])


def test_registered_time_limit_is_used() -> None:
    assert compare_with_gymnasium("Reacher-v5", steps=51, num_envs=1, kwargs={}) == 1


def trajectory(sim: NativeSim, actions: np.ndarray) -> list[np.ndarray]:
    """Everything that a few steps return, as rows per environment."""
    rows = []
    for row in actions:
        r = sim.step(row)
        columns = (r.rewards, r.terminals, r.timeouts)
        rows.append(np.concatenate((r.observations, r.next_observations, np.stack(columns, 1)), axis=1))
    return rows


def test_environment_does_not_depend_on_how_many_there_are() -> None:
    small, large = NativeSim("Hopper-v5", 3, threads=1), NativeSim("Hopper-v5", 7, threads=2)
    actions = random_actions(large, 120)
    assert np.array_equal(small.reset(3), large.reset(3)[:3])
    few, many = trajectory(small, actions[:, :3]), trajectory(large, actions)
    np.testing.assert_array_equal(few, np.array(many)[:, :3])
    assert np.array(few)[:, :, -2].sum() > 3  # several episodes ended, so resets are compared too


def test_seeds_and_environments_differ() -> None:
    sim = NativeSim("Hopper-v5", 4)
    first, again, other = sim.reset(0), sim.reset(0), sim.reset(1)
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).all(axis=1).any()
    assert len(np.unique(first, axis=0)) == 4


# Ant and Reacher-v4 pay by body positions that lag the state; Hopper needs the solver's warm start.
@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5", "Reacher-v4", "Humanoid-v5"])
def test_saved_state_continues_bit_for_bit(env_id: str) -> None:
    sim = NativeSim(env_id, 3, env_kwargs={"max_episode_steps": 45})
    actions = random_actions(sim, 80)
    sim.reset(5)
    trajectory(sim, actions[:40])
    saved = sim.state_dict()
    saved["generators"] = json.loads(json.dumps(saved["generators"]))
    expected = trajectory(sim, actions[40:])

    fresh = NativeSim(env_id, 3, env_kwargs={"max_episode_steps": 45})
    fresh.load_state_dict(saved)
    np.testing.assert_array_equal(trajectory(fresh, actions[40:]), expected)


def test_present_observation_is_restored() -> None:
    sim = NativeSim("HalfCheetah-v5", 2)
    sim.reset(0)
    sim.step(np.ones((2, 6)))
    fresh = NativeSim("HalfCheetah-v5", 2)
    fresh.load_state_dict(sim.state_dict())
    np.testing.assert_array_equal(fresh.observations, sim.observations)


def test_state_of_another_size_is_refused() -> None:
    sim = NativeSim("Hopper-v5", 2)
    sim.reset(0)
    with pytest.raises(ValueError, match=r"shape \(2, \d+\), Hopper-v5 needs \(3, \d+\)"):
        NativeSim("Hopper-v5", 3).load_state_dict(sim.state_dict())


def test_time_is_a_timeout_and_never_a_terminal() -> None:
    sim = NativeSim("HalfCheetah-v5", 2, env_kwargs={"max_episode_steps": 5})
    sim.reset(0)
    for step in range(1, 11):
        result = sim.step(np.zeros((2, 6)))
        assert not result.terminals.any()
        assert result.timeouts.all() == (step % 5 == 0)


def test_a_fall_on_the_last_step_is_a_terminal_only() -> None:
    kwargs = {"reset_noise_scale": 0.5}  # most episodes start beyond the angle limit and end at once
    sim = NativeSim("InvertedPendulum-v5", 16, env_kwargs={**kwargs, "max_episode_steps": 1})
    sim.reset(0)
    result = sim.step(np.zeros((16, 1)))
    assert result.terminals.any() and result.timeouts.any()
    assert (result.terminals ^ result.timeouts).all()


def test_inactive_environments_stand_still() -> None:
    sim, reference = NativeSim("Hopper-v5", 3), NativeSim("Hopper-v5", 3)
    actions = random_actions(sim, 60)
    before = sim.reset(0)
    reference.reset(0)
    active = np.array([True, False, True])
    for row in actions[:30]:
        masked, full = sim.step_active(row, active), reference.step(row)
        np.testing.assert_array_equal(masked.observations[active], full.observations[active])
        np.testing.assert_array_equal(masked.rewards[active], full.rewards[active])
        np.testing.assert_array_equal(masked.observations[1], before[1])
        assert masked.rewards[1] == 0 and not masked.terminals[1] and not masked.timeouts[1]
    reference.reset(0)
    for row in actions[30:]:  # the environment that stood still now goes through its first episode
        np.testing.assert_array_equal(sim.step(row).observations[1], reference.step(row).observations[1])


def test_actions_are_clipped() -> None:
    sim = NativeSim("HalfCheetah-v5", 2)
    sim.reset(0)
    clipped = sim.step(np.ones((2, 6)))
    sim.reset(0)
    np.testing.assert_array_equal(sim.step(np.full((2, 6), 9.0)).rewards, clipped.rewards)


def test_bad_actions_are_named() -> None:
    sim = NativeSim("Hopper-v5", 2)
    with pytest.raises(RuntimeError, match="before reset"):
        sim.step(np.zeros((2, 3)))
    sim.reset(0)
    with pytest.raises(ValueError, match=r"shape \(2, 4\), expected \(2, 3\)"):
        sim.step(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"actions\[1\] is not finite"):
        sim.step(np.array([[0.0, 0, 0], [0, np.nan, 0]]))


def test_results_are_not_overwritten_by_later_steps() -> None:
    sim = NativeSim("Hopper-v5", 2)
    sim.reset(0)
    first = sim.step(np.zeros((2, 3)))
    kept = [first.observations.copy(), first.next_observations.copy(), first.rewards.copy()]
    for _ in range(60):
        sim.step(np.ones((2, 3)))
    for now, then in zip((first.observations, first.next_observations, first.rewards), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_other_environments_are_not_native() -> None:
    assert has_native("Hopper-v5") and not has_native("Pendulum-v1")
