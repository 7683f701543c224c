"""Runners in a plane: HalfCheetah, Hopper, Swimmer and Walker2d."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv as HalfCheetahV4Env
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv as HalfCheetahV5Env
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv as HopperV4Env
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv as HopperV5Env
from gymnasium.envs.mujoco.swimmer_v4 import SwimmerEnv as SwimmerV4Env
from gymnasium.envs.mujoco.swimmer_v5 import SwimmerEnv as SwimmerV5Env
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv as Walker2dV4Env
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv as Walker2dV5Env

from unio4_lib.sim.base import Array, Flags
from unio4_lib.sim.tasks.base import (
    VELOCITY_LIMIT,
    Fields,
    Mortal,
    NormalVelocities,
    Task,
    strictly_inside,
    sum_of_squares,
)


class _Runner(Task):
    """Reward for moving along x, minus the control cost; some positions hidden."""

    hidden_positions = 1

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.forward_weight: float = env._forward_reward_weight
        self.control_weight: float = env._ctrl_cost_weight
        self.first = self.hidden_positions if env._exclude_current_positions_from_observation else 0

    def observe(self, now: Fields) -> Array:
        return np.concatenate((now["qpos"][:, self.first :], now["qvel"]), axis=1)

    def _forward_reward(self, before: Fields, after: Fields) -> Array:
        return self.forward_weight * ((after["qpos"][:, 0] - before["qpos"][:, 0]) / self.dt)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        control_cost = self.control_weight * sum_of_squares(actions)
        return self._forward_reward(before, after) - control_cost, self._never(after)


class HalfCheetah(_Runner, NormalVelocities):
    """Versions 4 and 5."""


class Swimmer(_Runner):
    """Versions 4 and 5."""

    hidden_positions = 2


class _Legs(_Runner, Mortal):
    """A planar runner that may fall."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.z_range: tuple[float, float] = env._healthy_z_range
        self.angle_range: tuple[float, float] = env._healthy_angle_range

    def observe(self, now: Fields) -> Array:
        velocities = now["qvel"].clip(-VELOCITY_LIMIT, VELOCITY_LIMIT)
        return np.concatenate((now["qpos"][:, self.first :], velocities), axis=1)

    def _healthy(self, now: Fields) -> Flags:
        qpos = now["qpos"]
        return strictly_inside(qpos[:, 1], self.z_range) & strictly_inside(qpos[:, 2], self.angle_range)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        healthy = self._healthy(after)
        control_cost = self.control_weight * sum_of_squares(actions)
        rewards = self._forward_reward(before, after) + self._alive_reward(healthy) - control_cost
        return rewards, self._terminals(healthy)


class Walker2dV5(_Legs):
    """Version 5."""


class Walker2dV4(Walker2dV5):
    """Version 4."""

    pays_while_ending = True


class HopperV5(_Legs):
    """Version 5: also unhealthy where any coordinate leaves the state range."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.state_range: tuple[float, float] = env._healthy_state_range

    def _healthy(self, now: Fields) -> Flags:
        positions = strictly_inside(now["qpos"][:, 2:], self.state_range).all(axis=1)
        velocities = strictly_inside(now["qvel"], self.state_range).all(axis=1)
        return super()._healthy(now) & positions & velocities


class HopperV4(HopperV5):
    """Version 4."""

    pays_while_ending = True


TASKS: dict[type, type[Task]] = {
    HalfCheetahV4Env: HalfCheetah,
    HalfCheetahV5Env: HalfCheetah,
    HopperV4Env: HopperV4,
    HopperV5Env: HopperV5,
    SwimmerV4Env: Swimmer,
    SwimmerV5Env: Swimmer,
    Walker2dV4Env: Walker2dV4,
    Walker2dV5Env: Walker2dV5,
}
