"""A cart that balances one pole or two."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.inverted_double_pendulum_v4 import (
    InvertedDoublePendulumEnv as InvertedDoublePendulumV4Env,
)
from gymnasium.envs.mujoco.inverted_double_pendulum_v5 import (
    InvertedDoublePendulumEnv as InvertedDoublePendulumV5Env,
)
from gymnasium.envs.mujoco.inverted_pendulum_v4 import InvertedPendulumEnv as InvertedPendulumV4Env
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv as InvertedPendulumV5Env

from unio4_lib.sim.base import Array, Flags
from unio4_lib.sim.tasks.base import VELOCITY_LIMIT, Fields, NormalVelocities, Task


class InvertedPendulumV5(Task):
    """Version 5."""

    max_angle = 0.2

    def observe(self, now: Fields) -> Array:
        return np.concatenate((now["qpos"], now["qvel"]), axis=1)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        finite = np.isfinite(after["qpos"]).all(axis=1) & np.isfinite(after["qvel"]).all(axis=1)
        terminals = ~finite | (np.abs(after["qpos"][:, 1]) > self.max_angle)
        return self._rewards(terminals), terminals

    def _rewards(self, terminals: Flags) -> Array:
        return (~terminals).astype(np.float64)


class InvertedPendulumV4(InvertedPendulumV5):
    """Version 4: pays also for the step that ends the episode."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.noise = 0.01

    def _rewards(self, terminals: Flags) -> Array:
        return np.ones(len(terminals))


class InvertedDoublePendulumV5(NormalVelocities):
    """Version 5."""

    fields = ("qpos", "qvel", "qfrc_constraint", "site_xpos")
    shown_constraints = 1
    lowest_tip = 1.0

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.healthy_reward: float = getattr(env, "_healthy_reward", 10.0)

    def observe(self, now: Fields) -> Array:
        angles = now["qpos"][:, 1:]
        forces = now["qfrc_constraint"].clip(-VELOCITY_LIMIT, VELOCITY_LIMIT)[:, : self.shown_constraints]
        velocities = now["qvel"].clip(-VELOCITY_LIMIT, VELOCITY_LIMIT)
        return np.concatenate(
            (now["qpos"][:, :1], np.sin(angles), np.cos(angles), velocities, forces), axis=1
        )

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        x, height = after["site_xpos"][:, 0, 0], after["site_xpos"][:, 0, 2]
        terminals = height <= self.lowest_tip
        distance_cost = 0.01 * x**2 + (height - 2) ** 2
        velocity_cost = 1e-3 * after["qvel"][:, 1] ** 2 + 5e-3 * after["qvel"][:, 2] ** 2
        return self._alive_reward(terminals) - distance_cost - velocity_cost, terminals

    def _alive_reward(self, terminals: Flags) -> Array:
        return (~terminals).astype(np.float64) * self.healthy_reward


class InvertedDoublePendulumV4(InvertedDoublePendulumV5):
    """Version 4: shows all constraint forces and pays also for the step that ends the episode."""

    shown_constraints = 3

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.noise = 0.1

    def _alive_reward(self, terminals: Flags) -> Array:
        return np.full(len(terminals), self.healthy_reward)


TASKS: dict[type, type[Task]] = {
    InvertedDoublePendulumV4Env: InvertedDoublePendulumV4,
    InvertedDoublePendulumV5Env: InvertedDoublePendulumV5,
    InvertedPendulumV4Env: InvertedPendulumV4,
    InvertedPendulumV5Env: InvertedPendulumV5,
}
