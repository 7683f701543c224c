"""A policy sees in the simulator what it saw in its dataset: the same numbers in the same order."""

from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from unio4_lib.sim import make_sim
from unio4_lib.sim.seeding import env_seed
from unio4_lib.sources.grammar import load_transitions

LIMIT = 5


class Nested(gymnasium.Env):
    """Four distinct numbers under keys that are not sorted, at two levels."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        box = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.observation_space = spaces.Dict(
            [("speed", box), ("goal", spaces.Dict([("y", box), ("x", box)])), ("arm", box)]
        )

    def _observation(self) -> dict[str, Any]:
        arm, x, y, speed = self.numbers[:, None]
        return {"speed": speed, "arm": arm, "goal": {"y": y, "x": x}}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.numbers = self.np_random.normal(size=4)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.numbers = np.cos(self.numbers * 3 + float(action[0]))
        return self._observation(), 0.0, False, False, {}


gymnasium.register("unio4-test/Nested-v0", entry_point=f"{__name__}:Nested", max_episode_steps=LIMIT)


def stack(samples: list[Any]) -> Any:
    if isinstance(samples[0], dict):
        return {key: stack([sample[key] for sample in samples]) for key in samples[0]}
    return np.stack(samples)


def record(data_format: str, actions: np.ndarray) -> None:
    """One episode as Minari stores it, in ``test/nested-v0``."""
    env = gymnasium.make("unio4-test/Nested-v0")
    observations = [env.reset(seed=env_seed(0, 0))[0]] + [env.step(action)[0] for action in actions]
    never = np.zeros(len(actions), np.bool_)
    episode = EpisodeBuffer(
        id=0,
        observations=stack(observations),
        actions=actions,
        rewards=np.zeros(len(actions)),
        terminations=never,
        truncations=never,
    )
    minari.create_dataset_from_buffers(
        "test/nested-v0",
        [episode],
        env=env,
        data_format=data_format,
        algorithm_name="a test",
        author="a test",
        author_email="test@example.org",
        code_permalink="https://example.org",
        description="a test",
    )
    env.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_dataset_and_simulator_agree(data_format: str) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (LIMIT, 1)).astype(np.float32)
    record(data_format, actions)
    data = load_transitions("minari:test/nested-v0")
    sim = make_sim("unio4-test/Nested-v0", 1)
    observations = [sim.reset(0)[0]]
    for action in actions:
        result = sim.step(action[None].astype(np.float64))
        observations.append(result.next_observations[0])
    assert result.timeouts.all()
    assert len(np.unique(observations)) == (LIMIT + 1) * 4  # no two numbers could be mistaken for each other
    np.testing.assert_array_equal(data.observations, np.float32(observations[:-1]))
    np.testing.assert_array_equal(data.next_observations, np.float32(observations[1:]))


@pytest.mark.filterwarnings("ignore")
def test_what_is_collected_can_be_read() -> None:
    data = load_transitions("collect:unio4-test/Nested-v0?level=random&steps=20")
    assert data.observations.shape == (20, 4)
    sim = make_sim("unio4-test/Nested-v0", 1)
    sim.reset(0)
    # arm, x, y, speed: each follows from itself alone, so a wrong order would not fit the dynamics.
    for now, action, successor in zip(data.observations, data.actions, data.next_observations, strict=True):
        np.testing.assert_allclose(np.cos(now * 3 + action), successor, atol=1e-5)
