"""What every simulator offers: a batch of environments behind five arrays.

Axis letters, here and everywhere: ``N`` environments (or rows), ``D`` observation, ``A`` action.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of all environments.

    ``next_observations`` is the true successor of the observation that was acted on, also where the
    episode ended. ``observations`` is what to act on next: the same rows, except that an episode that
    ended has already been reset. An episode never ends in both ways at once: ``timeouts`` is only set
    where ``terminals`` is not.
    """

    observations: Array  # [N, D]
    rewards: Array  # [N]
    next_observations: Array  # [N, D]
    terminals: Flags  # [N] the task ended: the value of the successor is zero
    timeouts: Flags  # [N] only time ended: the successor has a value


class BatchSim(Protocol):
    """N copies of one environment that reset themselves."""

    env_id: str
    num_envs: int
    observation_dim: int
    action_dim: int
    action_low: Array  # [A]
    action_high: Array  # [A]
    max_episode_steps: int | None

    def reset(self, seed: int) -> Array:
        """Start all episodes anew; the same seed gives the same episodes. Returns observations [N, D]."""
        ...

    def spread_ages(self) -> NDArray[np.int64]:
        """Count the episodes under way as if they had begun at different times, spread over the time limit.

        Their ends, and all later beginnings, then lie apart. Without a time limit nothing changes.
        Returns the steps [N] that each is ahead.
        """
        ...

    def step(self, actions: Array) -> StepResult:
        """Apply actions [N, A] (clipped to the bounds) and reset what ended."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit (arrays and JSON values)."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def spread(num_envs: int, limit: int | None) -> NDArray[np.int64]:
    """Ages [N] at equal distances from 0 to below the limit."""
    return np.arange(num_envs) * (limit or 0) // num_envs


def check_actions(actions: Array, num_envs: int, action_dim: int) -> None:
    """Refuse actions of a wrong shape, or with a row that is not finite; the row is named."""
    expected = (num_envs, action_dim)
    if actions.shape != expected:
        raise ValueError(f"actions have shape {actions.shape}, expected {expected}")
    if not np.isfinite(actions).all():
        row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
        raise ValueError(f"actions[{row}] is not finite: {actions[row]}")
