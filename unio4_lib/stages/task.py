"""The environment behind a dataset, and whether the two fit each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import RunConfig
from unio4_lib.sim import make_sim
from unio4_lib.sim.base import BatchSim

BOUNDS_TOLERANCE = 1e-5  # bounds come as float32 from one side


@dataclass(frozen=True)
class Task:
    """The environment behind a dataset."""

    env_id: str
    env_kwargs: dict[str, Any]

    @classmethod
    def of(cls, transitions: Transitions) -> "Task":
        return cls(transitions.info.env_id, dict(transitions.info.env_kwargs))

    def sim(self, num_envs: int) -> BatchSim:
        return make_sim(self.env_id, num_envs, env_kwargs=self.env_kwargs)

    def time_limit(self) -> int | None:
        """Most steps of an episode."""
        sim = self.sim(1)
        try:
            return sim.max_episode_steps
        finally:
            sim.close()


def check_dataset(transitions: Transitions, config: RunConfig, reporter: Reporter) -> None:
    """The environment is there and fits the data, and rows can be held out: now, not after an hour."""
    try:
        for note in check_environment(transitions):
            reporter.say(f"note: {note}")
        check_holdout(transitions, config)
    except InputError as error:
        raise InputError(f"dataset {config.dataset}: {error}") from error


def check_environment(transitions: Transitions) -> list[str]:
    """Refuse what does not fit the environment; what is worth a note otherwise."""
    task = Task.of(transitions)
    sim = task.sim(1)
    try:
        check_sizes(sim, "the dataset", transitions.observation_dim, transitions.action_dim)
        low, high = np.asarray(transitions.info.action_low), np.asarray(transitions.info.action_high)
        outside = max((sim.action_low - low).max(), (high - sim.action_high).max())
        inside = max((low - sim.action_low).max(), (sim.action_high - high).max())
        if outside > BOUNDS_TOLERANCE:
            raise InputError(
                f"action bounds {_bounds(low, high)}, but those of environment {task.env_id} are "
                f"{_bounds(sim.action_low, sim.action_high)}; they must lie within"
            )
        if inside > BOUNDS_TOLERANCE:
            return [
                f"policies stay in the dataset's action bounds {_bounds(low, high)}; "
                f"{task.env_id} allows {_bounds(sim.action_low, sim.action_high)}"
            ]
        return []
    finally:
        sim.close()


def check_sizes(sim: BatchSim, name: str, observation_dim: int, action_dim: int) -> None:
    """Observations and actions are as wide as those of the environment."""
    for kind, found, expected in (
        ("observation", observation_dim, sim.observation_dim),
        ("action", action_dim, sim.action_dim),
    ):
        if found != expected:
            raise InputError(
                f"{name} has {kind}s of size {found}, but environment {sim.env_id} has {expected}; "
                "they must be equal (another environment, or other env_kwargs?)"
            )


def _bounds(low: np.ndarray, high: np.ndarray) -> str:
    return f"[{low.min():g}, {high.max():g}]"


def check_holdout(transitions: Transitions, config: RunConfig) -> None:
    """Something is left to train on and something to hold out, of a single episode too."""
    rows = transitions.num_transitions
    for name, share in config.holdouts().items():
        if transitions.num_episodes == 1 and round((1 - share) * rows) in (0, rows):
            raise InputError(
                f"{rows} rows of one episode cannot be split by {name}={share:g}; "
                "expected more rows, or at least two episodes"
            )
