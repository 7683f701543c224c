"""A batch of MuJoCo simulations on native threads.

One ``mjData`` per environment, stepped by a few threads that take the next environment as they become
free; ``mj_step`` runs without the interpreter lock. Compared with ``mujoco.rollout`` this is as fast,
keeps the solver's warm start and exposes all derived quantities, so it equals Gymnasium bit for bit.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from unio4_lib.errors import InputError
from unio4_lib.sim.base import Array, Flags, StepResult, check_actions, spread
from unio4_lib.sim.registry import make_env
from unio4_lib.sim.seeding import env_generators, restore_generators, save_generators
from unio4_lib.sim.tasks import TASKS, Fields, Task

STATE_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION.value)  # includes controls and the warm start


def _exhaust(calls: Iterable[None]) -> None:
    deque(calls, maxlen=0)


def _is_native(env: gymnasium.Env) -> bool:
    """Whether a task definition exists, and nothing but the usual wrappers surrounds the environment."""
    spec = env.spec
    return type(env.unwrapped) in TASKS and spec is not None and not spec.additional_wrappers


def has_native(env_id: str, env_kwargs: dict[str, Any] | None = None) -> bool:
    """Whether ``NativeSim`` can simulate this environment."""
    env = make_env(env_id, env_kwargs)
    native = _is_native(env)
    env.close()
    return native


def default_threads() -> int:
    """As many threads as this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Gather:
    """Copies one field of all simulations into one array."""

    def __init__(self, datas: list[mujoco.MjData], field: str) -> None:
        self.shape = (len(datas), *getattr(datas[0], field).shape)
        # Views into the simulators' memory, made once: a field never moves.
        self.views = [getattr(data, field).reshape(-1) for data in datas]

    def __call__(self) -> Array:
        return np.concatenate(self.views).reshape(self.shape)


class NativeSim:
    """N environments of one task. See ``BatchSim`` for the contract.

    Environment ``i`` sees the same episodes as ``gymnasium.make(env_id)`` would after
    ``reset(seed=env_seed(seed, i))``, whatever the number of environments and threads.
    ``observations`` [N, D] is always what to act on next.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        env_kwargs: dict[str, Any] | None = None,
        threads: int | None = None,
    ) -> None:
        env = make_env(env_id, env_kwargs)
        if not _is_native(env):
            raise InputError(f'environment {env_id!r} has no native simulator: use backend="gym"')
        plain: Any = env.unwrapped
        assert env.spec is not None and isinstance(env.action_space, gymnasium.spaces.Box)
        self.env_id = env_id
        self.num_envs = num_envs
        self.max_episode_steps: int | None = env.spec.max_episode_steps
        self.action_dim: int = plain.model.nu
        self.action_low = env.action_space.low.astype(np.float64)
        self.action_high = env.action_space.high.astype(np.float64)
        self._model: mujoco.MjModel = plain.model
        self._frame_skip: int = plain.frame_skip
        self._task: Task = TASKS[type(plain)](plain)
        self._make_datas()
        self._threads = max(1, min(threads or default_threads(), num_envs))
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._generators: list[np.random.Generator] = []
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._now: Fields = self._gather()
        self.observations: Array = self._task.observe(self._now)
        self.observation_dim: int = self.observations.shape[1]

    def _make_datas(self) -> None:
        self._datas = [mujoco.MjData(self._model) for _ in range(self.num_envs)]
        self._controls: list[Array] = [data.ctrl for data in self._datas]  # views into their memory
        self._gathers = {field: _Gather(self._datas, field) for field in self._task.fields}

    def _gather(self) -> Fields:
        return {field: gather() for field, gather in self._gathers.items()}

    def reset(self, seed: int) -> Array:
        """Start all episodes anew. Returns observations [N, D]."""
        self._generators = env_generators(seed, self.num_envs)
        self._elapsed[:] = 0
        for index in range(self.num_envs):
            self._start_episode(index)
        self._now = self._gather()
        self.observations = self._task.observe(self._now)
        return self.observations.copy()

    def _start_episode(self, index: int) -> None:
        data = self._datas[index]
        mujoco.mj_resetData(self._model, data)
        data.qpos[:], data.qvel[:] = self._task.draw_start(self._generators[index])
        mujoco.mj_forward(self._model, data)

    def spread_ages(self) -> NDArray[np.int64]:
        """Let the episodes under way run out of time one after another."""
        self._elapsed[:] = spread(self.num_envs, self.max_episode_steps)
        return self._elapsed.copy()

    def step(self, actions: Array) -> StepResult:
        """Apply actions [N, A] and reset what ended."""
        return self._step(actions, None)

    def step_active(self, actions: Array, active: Flags) -> StepResult:
        """As ``step``, but leave environments where ``active`` [N] is false as they are.

        Their rows of the result hold the present observation, reward 0 and no flag.
        """
        return self._step(actions, active)

    def _step(self, actions: Array, active: Flags | None) -> StepResult:
        actions = self._checked(actions)
        before = self._now
        rows = np.arange(self.num_envs) if active is None else np.flatnonzero(active)
        self._simulate(rows, actions)
        self._now = self._gather()
        rewards, terminals = self._task.judge(before, self._now, actions)
        next_observations = self._task.observe(self._now)
        if active is None:
            self._elapsed += 1
        else:
            self._elapsed += active
            rewards, terminals = np.where(active, rewards, 0.0), terminals & active
        timeouts = self._out_of_time(terminals, active)
        self.observations = next_observations
        if terminals.any() or timeouts.any():
            self.observations = self._restart(np.flatnonzero(terminals | timeouts), next_observations)
        return StepResult(self.observations.copy(), rewards, next_observations, terminals, timeouts)

    def _checked(self, actions: Array) -> Array:
        if not self._generators:
            raise RuntimeError("step was called before reset")
        check_actions(actions, self.num_envs, self.action_dim)
        return np.clip(np.asarray(actions, dtype=np.float64), self.action_low, self.action_high)

    def _out_of_time(self, terminals: Flags, active: Flags | None) -> Flags:
        if self.max_episode_steps is None:
            return np.zeros_like(terminals)
        timeouts: Flags = (self._elapsed >= self.max_episode_steps) & ~terminals
        return timeouts if active is None else timeouts & active

    def _simulate(self, rows: NDArray[np.intp], actions: Array) -> None:
        for row in rows:
            self._controls[row][:] = actions[row]
        datas = [self._datas[row] for row in rows]
        self._for_each(datas, mujoco.mj_step, self._frame_skip)
        if self._task.needs_contact_forces:
            self._for_each(datas, mujoco.mj_rnePostConstraint)

    def _for_each(self, datas: list[mujoco.MjData], function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function(model, data, *arguments)`` for all ``datas``, shared between the threads."""
        # All threads draw from one iterator, so a slow environment never holds up a fixed share. The loop
        # itself runs in map: a thread holds the interpreter lock for less than a microsecond per call.
        calls = (repeat(self._model), iter(datas), *map(repeat, arguments))
        helpers = min(self._threads, len(datas)) - 1
        pool = self._pool
        running = [pool.submit(_exhaust, map(function, *calls)) for _ in range(helpers)] if pool else []
        _exhaust(map(function, *calls))
        for helper in running:
            helper.result()

    def _restart(self, ended: NDArray[np.intp], next_observations: Array) -> Array:
        """Begin new episodes in the environments ``ended`` [K]. Returns observations [N, D]."""
        for index in ended:
            self._start_episode(int(index))
        self._elapsed[ended] = 0
        self._now = self._gather()
        observations = next_observations.copy()
        observations[ended] = self._task.observe({k: v[ended] for k, v in self._now.items()})
        return observations

    def state_dict(self) -> dict[str, Any]:
        """Full simulator states, derived fields, elapsed steps and generators."""
        states = np.empty((self.num_envs, mujoco.mj_stateSize(self._model, STATE_SPEC)))
        for row, data in zip(states, self._datas, strict=True):
            mujoco.mj_getState(self._model, data, row, STATE_SPEC)
        return {
            "states": states,
            "fields": {field: values.copy() for field, values in self._now.items()},
            "elapsed": self._elapsed.copy(),
            "generators": save_generators(self._generators),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        states = np.asarray(state["states"])
        expected = (self.num_envs, mujoco.mj_stateSize(self._model, STATE_SPEC))
        if states.shape != expected:
            raise ValueError(f"simulator states have shape {states.shape}, {self.env_id} needs {expected}")
        for row, data in zip(states, self._datas, strict=True):
            mujoco.mj_setState(self._model, data, row, STATE_SPEC)
        # Derived fields lag the state, so computing them again would not give what was saved.
        for field, gather in self._gathers.items():
            saved = np.asarray(state["fields"][field])
            for view, row in zip(gather.views, saved, strict=True):
                view[:] = row.reshape(-1)
        self._elapsed[:] = state["elapsed"]
        self._generators = restore_generators(state["generators"])
        self._now = self._gather()
        self.observations = self._task.observe(self._now)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
