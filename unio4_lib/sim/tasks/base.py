"""What every task restates of its Gymnasium class, and the parts that several tasks share."""

from typing import Any

import numpy as np

from unio4_lib.sim.base import Array, Flags

# Fields of mjData by name; each is [N, ...] with the shape that MuJoCo gives the field after N.
Fields = dict[str, Array]

VELOCITY_LIMIT = 10.0  # Hopper, Walker2d and InvertedDoublePendulum show velocities only up to here


def strictly_inside(values: Array, bounds: tuple[float, float]) -> Flags:
    return (bounds[0] < values) & (values < bounds[1])


def sum_of_squares(values: Array) -> Array:
    """[N, ...] -> [N]."""
    return np.square(values).reshape(len(values), -1).sum(axis=1)


class Task:
    """What one Gymnasium class adds to the bare simulation."""

    fields: tuple[str, ...] = ("qpos", "qvel")
    needs_contact_forces: bool = False  # whether cfrc_ext must be computed after the step

    def __init__(self, env: Any) -> None:
        self.model = env.model
        self.dt: float = env.dt
        self.init_qpos: Array = env.init_qpos.copy()
        self.init_qvel: Array = env.init_qvel.copy()
        self.noise: float = getattr(env, "_reset_noise_scale", 0.0)

    def draw_start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Positions and velocities of a new episode, drawn in Gymnasium's order."""
        qpos = self.init_qpos + rng.uniform(-self.noise, self.noise, self.init_qpos.size)
        return qpos, self._draw_velocities(rng)

    def _draw_velocities(self, rng: np.random.Generator) -> Array:
        return self.init_qvel + rng.uniform(-self.noise, self.noise, self.init_qvel.size)

    def observe(self, now: Fields) -> Array:
        """Fields -> observations [N, D]."""
        raise NotImplementedError

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        """Fields before and after the step, actions [N, A] -> rewards [N], terminals [N]."""
        raise NotImplementedError

    @staticmethod
    def _never(after: Fields) -> Flags:
        return np.zeros(len(after["qpos"]), dtype=np.bool_)


class NormalVelocities(Task):
    """Episodes that start with Gaussian instead of uniform velocity noise."""

    def _draw_velocities(self, rng: np.random.Generator) -> Array:
        return self.init_qvel + self.noise * rng.standard_normal(self.init_qvel.size)


class Mortal(Task):
    """The part of a task that pays for being healthy and ends when it is not."""

    pays_while_ending = False  # version 4 pays the reward also on the step that ends the episode

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.healthy_reward: float = env._healthy_reward
        self.ends_unhealthy: bool = env._terminate_when_unhealthy

    def _alive_reward(self, healthy: Flags) -> Array:
        if self.pays_while_ending and self.ends_unhealthy:
            return np.full(len(healthy), float(self.healthy_reward))
        return healthy.astype(np.float64) * self.healthy_reward

    def _terminals(self, healthy: Flags) -> Flags:
        return ~healthy if self.ends_unhealthy else np.zeros_like(healthy)
