"""Environments that a user may bring and that misbehave, as ``odd_environments:<id>``."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Odd(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that goes where it is told; ``fault`` says how it misbehaves at the fifth step."""

    def __init__(self, fault: str = "", low: float = -1.0) -> None:
        self.observation_space = spaces.Box(-9.0, 9.0, (2,), np.float64)
        self.action_space = spaces.Box(low, 1.0, (1,), np.float32)
        self.fault, self.steps = fault, 0
        if fault == "prints":
            print("made")  # noqa: T201

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self.fault == "prints":
            print("a new episode")  # noqa: T201
        self.steps = 0
        return self.np_random.normal(size=2), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        odd = self.steps == 5
        reward = np.nan if odd and self.fault == "reward" else float(action[0])
        observation = np.full(2, np.nan if odd and self.fault == "observation" else 0.1 * self.steps)
        return observation, reward, False, False, {}


gymnasium.register("Odd-v0", "odd_environments:Odd", max_episode_steps=20)
gymnasium.register("Lambda-v0", lambda **kwargs: Odd(**kwargs), max_episode_steps=20)
