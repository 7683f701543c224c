"""The Gymnasium MuJoCo tasks as functions of a batch of simulator states.

Each class here restates one Gymnasium environment class: which simulator fields it looks at, and how
observation, reward, termination and the start of an episode follow from them. Parameters are read
from a real instance, so keyword arguments of ``gymnasium.make`` have their usual effect.

All tasks are exact: they read the same fields at the same moment as Gymnasium does. That includes its
known quirk that body positions lag the joint positions by one substep, because ``mj_step`` integrates
last. Pusher-v4 is missing because it refuses to run on MuJoCo 3 and later.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv as AntV4Env
from gymnasium.envs.mujoco.ant_v5 import AntEnv as AntV5Env
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv as HalfCheetahV4Env
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv as HalfCheetahV5Env
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv as HopperV4Env
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv as HopperV5Env
from gymnasium.envs.mujoco.humanoid_v4 import HumanoidEnv as HumanoidV4Env
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv as HumanoidV5Env
from gymnasium.envs.mujoco.humanoidstandup_v4 import HumanoidStandupEnv as HumanoidStandupV4Env
from gymnasium.envs.mujoco.humanoidstandup_v5 import HumanoidStandupEnv as HumanoidStandupV5Env
from gymnasium.envs.mujoco.inverted_double_pendulum_v4 import (
    InvertedDoublePendulumEnv as InvertedDoublePendulumV4Env,
)
from gymnasium.envs.mujoco.inverted_double_pendulum_v5 import (
    InvertedDoublePendulumEnv as InvertedDoublePendulumV5Env,
)
from gymnasium.envs.mujoco.inverted_pendulum_v4 import InvertedPendulumEnv as InvertedPendulumV4Env
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv as InvertedPendulumV5Env
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv as PusherV5Env
from gymnasium.envs.mujoco.reacher_v4 import ReacherEnv as ReacherV4Env
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv as ReacherV5Env
from gymnasium.envs.mujoco.swimmer_v4 import SwimmerEnv as SwimmerV4Env
from gymnasium.envs.mujoco.swimmer_v5 import SwimmerEnv as SwimmerV5Env
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv as Walker2dV4Env
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv as Walker2dV5Env

from unio4_lib.sim.base import Array, Flags

# Fields of mjData by name; each is [N, ...] with the shape that MuJoCo gives the field after N.
Fields = dict[str, Array]

VELOCITY_LIMIT = 10.0  # Hopper, Walker2d and InvertedDoublePendulum show velocities only up to here
FREE_JOINT_VELOCITIES = 6  # leading velocities of a floating base, which no actuator drives


def _strictly_inside(values: Array, bounds: tuple[float, float]) -> Flags:
    return (bounds[0] < values) & (values < bounds[1])


def _sum_of_squares(values: Array) -> Array:
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


class _NormalVelocities(Task):
    """Episodes that start with Gaussian instead of uniform velocity noise."""

    def _draw_velocities(self, rng: np.random.Generator) -> Array:
        return self.init_qvel + self.noise * rng.standard_normal(self.init_qvel.size)


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
        control_cost = self.control_weight * _sum_of_squares(actions)
        return self._forward_reward(before, after) - control_cost, self._never(after)


class HalfCheetah(_Runner, _NormalVelocities):
    """Versions 4 and 5."""


class Swimmer(_Runner):
    """Versions 4 and 5."""

    hidden_positions = 2


class _Mortal(Task):
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


class _Legs(_Runner, _Mortal):
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
        return _strictly_inside(qpos[:, 1], self.z_range) & _strictly_inside(qpos[:, 2], self.angle_range)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        healthy = self._healthy(after)
        control_cost = self.control_weight * _sum_of_squares(actions)
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
        positions = _strictly_inside(now["qpos"][:, 2:], self.state_range).all(axis=1)
        velocities = _strictly_inside(now["qvel"], self.state_range).all(axis=1)
        return super()._healthy(now) & positions & velocities


class HopperV4(HopperV5):
    """Version 4."""

    pays_while_ending = True


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


class InvertedDoublePendulumV5(_NormalVelocities):
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


class _Arm(Task):
    """Reacher and Pusher: distances between bodies."""

    fields = ("qpos", "qvel", "xpos")
    start_speed = 0.005

    def _position(self, now: Fields, body: int) -> Array:
        return now["xpos"][:, body]

    def _distance(self, now: Fields, body_a: int, body_b: int) -> Array:
        return np.sqrt(np.square(self._position(now, body_a) - self._position(now, body_b)).sum(axis=1))

    def _draw_arm_velocities(self, rng: np.random.Generator, still: int) -> Array:
        """The last ``still`` velocities belong to the goal and start at rest."""
        qvel = self.init_qvel + rng.uniform(-self.start_speed, self.start_speed, self.init_qvel.size)
        qvel[-still:] = 0
        return qvel


class ReacherV5(_Arm):
    """Version 5."""

    shown_axes = 2

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.distance_weight: float = getattr(env, "_reward_dist_weight", 1.0)
        self.control_weight: float = getattr(env, "_reward_control_weight", 1.0)
        self.fingertip, self.target = self.model.body("fingertip").id, self.model.body("target").id

    def draw_start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        qpos = rng.uniform(-0.1, 0.1, self.init_qpos.size) + self.init_qpos
        goal = rng.uniform(-0.2, 0.2, 2)
        while np.linalg.norm(goal) >= 0.2:
            goal = rng.uniform(-0.2, 0.2, 2)
        qpos[-2:] = goal
        return qpos, self._draw_arm_velocities(rng, still=2)

    def observe(self, now: Fields) -> Array:
        angles = now["qpos"][:, :2]
        offset = self._position(now, self.fingertip) - self._position(now, self.target)
        parts = (np.cos(angles), np.sin(angles), now["qpos"][:, 2:], now["qvel"][:, :2])
        return np.concatenate((*parts, offset[:, : self.shown_axes]), axis=1)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        distance = self._distance(after, self.fingertip, self.target)
        rewards = -distance * self.distance_weight - _sum_of_squares(actions) * self.control_weight
        return rewards, self._never(after)


class ReacherV4(ReacherV5):
    """Version 4: pays for the distance before the step, and shows the offset in three axes."""

    shown_axes = 3

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        return super().judge(after, before, actions)


class PusherV5(_Arm):
    """Version 5."""

    nearest_start = 0.17

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.near_weight: float = env._reward_near_weight
        self.distance_weight: float = env._reward_dist_weight
        self.control_weight: float = env._reward_control_weight
        self.tip, self.object, self.goal = (
            self.model.body(name).id for name in ("tips_arm", "object", "goal")
        )

    def draw_start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        cylinder = np.zeros(2)
        while np.linalg.norm(cylinder) <= self.nearest_start:
            cylinder = np.concatenate((rng.uniform(-0.3, 0.0, 1), rng.uniform(-0.2, 0.2, 1)))
        qpos = self.init_qpos.copy()
        qpos[-4:-2] = cylinder
        qpos[-2:] = 0
        return qpos, self._draw_arm_velocities(rng, still=4)

    def observe(self, now: Fields) -> Array:
        bodies = [self._position(now, body) for body in (self.tip, self.object, self.goal)]
        return np.concatenate((now["qpos"][:, :7], now["qvel"][:, :7], *bodies), axis=1)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        near = -self._distance(after, self.object, self.tip) * self.near_weight
        distance = -self._distance(after, self.object, self.goal) * self.distance_weight
        control = -_sum_of_squares(actions) * self.control_weight
        return distance + control + near, self._never(after)


class AntV5(_NormalVelocities, _Mortal):
    """Version 5."""

    fields = ("qpos", "qvel", "xpos", "cfrc_ext")
    needs_contact_forces = True
    first_shown_force = 1

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.forward_weight: float = getattr(env, "_forward_reward_weight", 1.0)
        self.control_weight: float = env._ctrl_cost_weight
        self.contact_weight: float = env._contact_cost_weight
        self.force_range: tuple[float, float] = env._contact_force_range
        self.z_range: tuple[float, float] = env._healthy_z_range
        self.body: int = self.model.body(getattr(env, "_main_body", "torso")).id
        self.first = 2 if env._exclude_current_positions_from_observation else 0
        self.shows_forces: bool = self._shows_forces(env)

    def _shows_forces(self, env: Any) -> bool:
        return bool(env._include_cfrc_ext_in_observation)

    def _forces(self, now: Fields) -> Array:
        return now["cfrc_ext"].clip(*self.force_range)

    def observe(self, now: Fields) -> Array:
        parts = [now["qpos"][:, self.first :], now["qvel"]]
        if self.shows_forces:
            forces = self._forces(now)[:, self.first_shown_force :]
            parts.append(forces.reshape(len(forces), -1))
        return np.concatenate(parts, axis=1)

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        speed = (after["xpos"][:, self.body, 0] - before["xpos"][:, self.body, 0]) / self.dt
        finite = np.isfinite(after["qpos"]).all(axis=1) & np.isfinite(after["qvel"]).all(axis=1)
        height = after["qpos"][:, 2]
        healthy = finite & (self.z_range[0] <= height) & (height <= self.z_range[1])
        costs = self.control_weight * _sum_of_squares(actions) + self._contact_cost(after)
        return speed * self.forward_weight + self._alive_reward(healthy) - costs, self._terminals(healthy)

    def _contact_cost(self, after: Fields) -> Array:
        return self.contact_weight * _sum_of_squares(self._forces(after))


class AntV4(AntV5):
    """Version 4: contact forces are shown and cost something only when asked for."""

    pays_while_ending = True
    first_shown_force = 0

    def _shows_forces(self, env: Any) -> bool:
        return bool(env._use_contact_forces)

    def _contact_cost(self, after: Fields) -> Array:
        return super()._contact_cost(after) if self.shows_forces else np.zeros(len(after["qpos"]))


class _Body(Task):
    """Humanoid and HumanoidStandup: the same long observation."""

    fields: tuple[str, ...] = ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    needs_contact_forces = True

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.first = 2 if env._exclude_current_positions_from_observation else 0
        self.shown: list[tuple[str, int]] = [
            (field, FREE_JOINT_VELOCITIES if field == "qfrc_actuator" else 1)
            for field in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
            if getattr(env, f"_include_{field}_in_observation") is True
        ]

    def observe(self, now: Fields) -> Array:
        parts = [now["qpos"][:, self.first :], now["qvel"]]
        for field, skipped in self.shown:
            values = now[field][:, skipped:]
            parts.append(values.reshape(len(values), -1))
        return np.concatenate(parts, axis=1)


class _WholeBody(_Body):
    """Version 4 of both: everything is shown, also for the world body and the floating base."""

    def __init__(self, env: Any) -> None:
        Task.__init__(self, env)
        self.first = 2 if getattr(env, "_exclude_current_positions_from_observation", True) else 0
        self.shown = [(field, 0) for field in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")]


class _HumanoidRules(_Mortal):
    """Reward and termination of Humanoid."""

    def _read_rules(self, env: Any) -> None:
        self.healthy_reward = env._healthy_reward
        self.ends_unhealthy = env._terminate_when_unhealthy
        self.forward_weight: float = env._forward_reward_weight
        self.control_weight: float = env._ctrl_cost_weight
        self.z_range: tuple[float, float] = env._healthy_z_range
        self.mass: Array = self.model.body_mass.copy()

    def _center_x(self, now: Fields) -> Array:
        return np.einsum("b,nb->n", self.mass, now["xipos"][:, :, 0]) / self.mass.sum()

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        speed = (self._center_x(after) - self._center_x(before)) / self.dt
        healthy = _strictly_inside(after["qpos"][:, 2], self.z_range)
        costs = self.control_weight * _sum_of_squares(actions) + self._contact_cost(after)
        return self.forward_weight * speed + self._alive_reward(healthy) - costs, self._terminals(healthy)

    def _contact_cost(self, after: Fields) -> Array:
        return np.zeros(len(after["qpos"]))


class HumanoidV5(_HumanoidRules, _Body):
    """Version 5."""

    fields = (*_Body.fields, "xipos")

    def __init__(self, env: Any) -> None:
        _Body.__init__(self, env)
        self._read_rules(env)
        self.contact_weight: float = env._contact_cost_weight
        self.contact_range: tuple[float, float] = env._contact_cost_range

    def _contact_cost(self, after: Fields) -> Array:
        return (self.contact_weight * _sum_of_squares(after["cfrc_ext"])).clip(*self.contact_range)


class HumanoidV4(_HumanoidRules, _WholeBody):
    """Version 4: no contact cost."""

    fields = (*_Body.fields, "xipos")
    pays_while_ending = True

    def __init__(self, env: Any) -> None:
        _WholeBody.__init__(self, env)
        self._read_rules(env)


class HumanoidStandupV5(_Body):
    """Version 5."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._read_weights(env)

    def _read_weights(self, env: Any) -> None:
        self.control_weight: float = getattr(env, "_ctrl_cost_weight", 0.1)
        self.impact_weight: float = getattr(env, "_impact_cost_weight", 0.5e-6)
        self.impact_range: tuple[float, float] = getattr(env, "_impact_cost_range", (-np.inf, 10.0))

    def judge(self, before: Fields, after: Fields, actions: Array) -> tuple[Array, Flags]:
        # Gymnasium divides by the simulator's time step here and not by the time of a whole step.
        upward = after["qpos"][:, 2] / self.model.opt.timestep
        control_cost = self.control_weight * _sum_of_squares(actions)
        impact_cost = (self.impact_weight * _sum_of_squares(after["cfrc_ext"])).clip(*self.impact_range)
        return upward - control_cost - impact_cost + 1, self._never(after)


class HumanoidStandupV4(_WholeBody, HumanoidStandupV5):
    """Version 4."""

    def __init__(self, env: Any) -> None:
        _WholeBody.__init__(self, env)
        self._read_weights(env)
        self.noise = 0.01


TASKS: dict[type, Callable[[Any], Task]] = {
    AntV4Env: AntV4,
    AntV5Env: AntV5,
    HalfCheetahV4Env: HalfCheetah,
    HalfCheetahV5Env: HalfCheetah,
    HopperV4Env: HopperV4,
    HopperV5Env: HopperV5,
    HumanoidStandupV4Env: HumanoidStandupV4,
    HumanoidStandupV5Env: HumanoidStandupV5,
    HumanoidV4Env: HumanoidV4,
    HumanoidV5Env: HumanoidV5,
    InvertedDoublePendulumV4Env: InvertedDoublePendulumV4,
    InvertedDoublePendulumV5Env: InvertedDoublePendulumV5,
    InvertedPendulumV4Env: InvertedPendulumV4,
    InvertedPendulumV5Env: InvertedPendulumV5,
    PusherV5Env: PusherV5,
    ReacherV4Env: ReacherV4,
    ReacherV5Env: ReacherV5,
    SwimmerV4Env: Swimmer,
    SwimmerV5Env: Swimmer,
    Walker2dV4Env: Walker2dV4,
    Walker2dV5Env: Walker2dV5,
}
