"""Any continuous-action Gymnasium environment behind the ``BatchSim`` contract.

N plain environments, stepped one after another on the calling thread and reset in the step that ends
an episode. The native simulator is faster where it has the task.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from numpy.typing import NDArray

from unio4_lib.data.flatten import sorted_space
from unio4_lib.errors import InputError
from unio4_lib.sim.base import Array, Flags, StepResult, check_actions, spread
from unio4_lib.sim.batch import STATE_SPEC
from unio4_lib.sim.registry import checked_limit, find_spec, make_env
from unio4_lib.sim.seeding import env_seed, restore_generators, save_generators

# Parts of the model that environments edit when an episode starts, such as the place of a goal.
EDITED_MODEL_FIELDS = ("body_pos", "body_quat", "site_pos", "site_quat")


def _checked_action_space(env_id: str, space: gymnasium.Space[Any]) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise InputError(f"environment {env_id!r} has action space {space}, expected a flat continuous Box")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise InputError(f"environment {env_id!r} has unbounded actions, expected finite bounds")
    return space


def _checked_observation_space(env_id: str, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    if isinstance(space, spaces.Dict):
        for part in space.spaces.values():
            _checked_observation_space(env_id, part)
    elif not isinstance(space, spaces.Box) or len(space.shape) != 1:
        expected = "a flat Box or a Dict of flat Boxes (no images, no discrete states)"
        raise InputError(f"environment {env_id!r} has observation space {space}, expected {expected}")
    return sorted_space(space)


class GymSim:
    """N environments of any id. See ``BatchSim`` for the contract.

    Dict observations are flattened in the order of their sorted keys, like those of datasets. Actions are
    handed over in the precision of the action space, so rewards can differ from the native simulator's in
    the precision of float32.
    """

    def __init__(self, env_id: str, num_envs: int, *, env_kwargs: dict[str, Any] | None = None) -> None:
        kwargs = dict(env_kwargs or {})
        # Time is counted here, so that an environment's own truncation cannot hide a termination.
        limit = kwargs.pop("max_episode_steps", find_spec(env_id).max_episode_steps)
        self.max_episode_steps: int | None = checked_limit(env_id, limit)
        self._envs = [make_env(env_id, kwargs, max_episode_steps=-1) for _ in range(num_envs)]
        self._action_space = _checked_action_space(env_id, self._envs[0].action_space)
        self._observation_space = _checked_observation_space(env_id, self._envs[0].observation_space)
        self.env_id = env_id
        self.num_envs = num_envs
        self.observation_dim: int = spaces.flatdim(self._observation_space)
        self.action_dim: int = self._action_space.shape[0]
        self.action_low = self._action_space.low.astype(np.float64)
        self.action_high = self._action_space.high.astype(np.float64)
        self.observations: Array = np.zeros((num_envs, self.observation_dim))
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._started = False

    def _flat(self, observation: Any) -> Array:
        return np.asarray(spaces.flatten(self._observation_space, observation), dtype=np.float64)

    def reset(self, seed: int) -> Array:
        """Start all episodes anew. Returns observations [N, D]."""
        for index, env in enumerate(self._envs):
            self.observations[index] = self._flat(env.reset(seed=env_seed(seed, index))[0])
        self._elapsed[:] = 0
        self._started = True
        return self.observations.copy()

    def spread_ages(self) -> NDArray[np.int64]:
        """Let the episodes under way run out of time one after another."""
        self._elapsed[:] = spread(self.num_envs, self.max_episode_steps)
        return self._elapsed.copy()

    def step(self, actions: Array) -> StepResult:
        """Apply actions [N, A] and reset what ended."""
        return self.step_active(actions, np.ones(self.num_envs, dtype=np.bool_))

    def step_active(self, actions: Array, active: Flags) -> StepResult:
        """As ``step``, but leave environments where ``active`` [N] is false as they are.

        Their rows of the result hold the present observation, reward 0 and no flag.
        """
        actions = self._checked(actions)
        rewards = np.zeros(self.num_envs)
        terminals, timeouts = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        next_observations = self.observations.copy()
        for index in np.flatnonzero(active).tolist():
            env = self._envs[index]
            observation, reward, terminated, truncated, _ = env.step(actions[index])
            self._elapsed[index] += 1
            next_observations[index] = self._flat(observation)
            rewards[index], terminals[index] = float(reward), terminated
            timeouts[index] = (truncated or self._out_of_time(index)) and not terminated
            self.observations[index] = next_observations[index]
            if terminals[index] or timeouts[index]:
                self.observations[index] = self._flat(env.reset()[0])
                self._elapsed[index] = 0
        return StepResult(self.observations.copy(), rewards, next_observations, terminals, timeouts)

    def _out_of_time(self, index: int) -> bool:
        return self.max_episode_steps is not None and bool(self._elapsed[index] >= self.max_episode_steps)

    def _checked(self, actions: Array) -> Array:
        if not self._started:
            raise RuntimeError("step was called before reset")
        check_actions(actions, self.num_envs, self.action_dim)
        return np.clip(actions, self.action_low, self.action_high).astype(self._action_space.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Simulator states of MuJoCo environments; other environments cannot be saved."""
        self._require_mujoco()
        return {
            "envs": [_mujoco_state(env.unwrapped) for env in self._envs],
            "generators": save_generators([part.np_random for env in self._envs for part in _parts(env)]),
            "observations": self.observations.copy(),
            "elapsed": self._elapsed.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._require_mujoco()
        if len(state["envs"]) != self.num_envs:
            raise ValueError(f"state holds {len(state['envs'])} environments, expected {self.num_envs}")
        generators = iter(restore_generators(state["generators"]))
        for env, saved in zip(self._envs, state["envs"], strict=True):
            env.reset(seed=0)  # wrappers refuse to step an environment that was never reset
            _load_mujoco_state(env.unwrapped, saved)
            for part in _parts(env):
                part.np_random = next(generators)
        self.observations = np.array(state["observations"])
        self._elapsed[:] = state["elapsed"]
        self._started = True

    def _require_mujoco(self) -> None:
        if not any(isinstance(part, MujocoEnv) for part in _parts(self._envs[0])):
            raise NotImplementedError(f"{self.env_id}: only the state of MuJoCo environments can be saved")

    def close(self) -> None:
        for env in self._envs:
            env.close()


def _parts(env: gymnasium.Env) -> list[Any]:
    """The environment without its wrappers and, for a maze, the MuJoCo environment that walks in it."""
    plain = env.unwrapped
    return [plain, *(value for value in vars(plain).values() if isinstance(value, MujocoEnv))]


def _derived_fields(env: Any) -> dict[str, Array]:
    """Float arrays in the simulator's memory: some lag the state, so they cannot be computed from it.

    Arrays of constraints change their size with every contact; they are left out, as no task looks at them.
    """
    without_contacts = mujoco.MjData(env.model)
    found = {}
    for name in dir(without_contacts):
        value = None if name.startswith("_") else getattr(without_contacts, name)
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size:
            found[name] = getattr(env.data, name)
    return {name: values for name, values in found.items() if values.flags.writeable}


def _plain_attributes(env: Any) -> dict[str, Any]:
    """The environment's own numbers, such as the goal of the present episode."""
    kinds = (bool, int, float)
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in vars(env).items()
        if isinstance(value, kinds) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")
    }


def _mujoco_state(env: Any) -> dict[str, Any]:
    state = np.empty(mujoco.mj_stateSize(env.model, STATE_SPEC))
    mujoco.mj_getState(env.model, env.data, state, STATE_SPEC)
    return {
        "state": state,
        "derived": {name: values.copy() for name, values in _derived_fields(env).items()},
        "model": {name: getattr(env.model, name).copy() for name in EDITED_MODEL_FIELDS},
        "attributes": [_plain_attributes(part) for part in _parts(env)],
    }


def _load_mujoco_state(env: Any, saved: dict[str, Any]) -> None:
    for name, values in saved["model"].items():
        getattr(env.model, name)[:] = values
    mujoco.mj_setState(env.model, env.data, np.asarray(saved["state"]), STATE_SPEC)
    mujoco.mj_forward(env.model, env.data)
    present = _derived_fields(env)
    for name, values in saved["derived"].items():
        present[name][:] = values
    for part, attributes in zip(_parts(env), saved["attributes"], strict=True):
        for name, value in attributes.items():
            setattr(part, name, value.copy() if isinstance(value, np.ndarray) else value)
