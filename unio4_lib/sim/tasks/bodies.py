"""Bodies that move freely in space: Ant, Humanoid and HumanoidStandup."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv as AntV4Env
from gymnasium.envs.mujoco.ant_v5 import AntEnv as AntV5Env
from gymnasium.envs.mujoco.humanoid_v4 import HumanoidEnv as HumanoidV4Env
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv as HumanoidV5Env
from gymnasium.envs.mujoco.humanoidstandup_v4 import HumanoidStandupEnv as HumanoidStandupV4Env
from gymnasium.envs.mujoco.humanoidstandup_v5 import HumanoidStandupEnv as HumanoidStandupV5Env

from unio4_lib.sim.base import Array, Flags
from unio4_lib.sim.tasks.base import Fields, Mortal, NormalVelocities, Task, strictly_inside, sum_of_squares

FREE_JOINT_VELOCITIES = 6  # leading velocities of a floating base, which no actuator drives


class AntV5(NormalVelocities, Mortal):
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
        costs = self.control_weight * sum_of_squares(actions) + self._contact_cost(after)
        return speed * self.forward_weight + self._alive_reward(healthy) - costs, self._terminals(healthy)

    def _contact_cost(self, after: Fields) -> Array:
        return self.contact_weight * sum_of_squares(self._forces(after))


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


class _HumanoidRules(Mortal):
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
        healthy = strictly_inside(after["qpos"][:, 2], self.z_range)
        costs = self.control_weight * sum_of_squares(actions) + self._contact_cost(after)
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
        return (self.contact_weight * sum_of_squares(after["cfrc_ext"])).clip(*self.contact_range)


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
        control_cost = self.control_weight * sum_of_squares(actions)
        impact_cost = (self.impact_weight * sum_of_squares(after["cfrc_ext"])).clip(*self.impact_range)
        return upward - control_cost - impact_cost + 1, self._never(after)


class HumanoidStandupV4(_WholeBody, HumanoidStandupV5):
    """Version 4."""

    def __init__(self, env: Any) -> None:
        _WholeBody.__init__(self, env)
        self._read_weights(env)
        self.noise = 0.01


TASKS: dict[type, type[Task]] = {
    AntV4Env: AntV4,
    AntV5Env: AntV5,
    HumanoidStandupV4Env: HumanoidStandupV4,
    HumanoidStandupV5Env: HumanoidStandupV5,
    HumanoidV4Env: HumanoidV4,
    HumanoidV5Env: HumanoidV5,
}
