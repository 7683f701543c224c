"""Arms that reach: Pusher and Reacher."""

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv as PusherV5Env
from gymnasium.envs.mujoco.reacher_v4 import ReacherEnv as ReacherV4Env
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv as ReacherV5Env

from unio4_lib.sim.base import Array, Flags
from unio4_lib.sim.tasks.base import Fields, Task, sum_of_squares


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
        rewards = -distance * self.distance_weight - sum_of_squares(actions) * self.control_weight
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
        control = -sum_of_squares(actions) * self.control_weight
        return distance + control + near, self._never(after)


TASKS: dict[type, type[Task]] = {
    PusherV5Env: PusherV5,
    ReacherV4Env: ReacherV4,
    ReacherV5Env: ReacherV5,
}
