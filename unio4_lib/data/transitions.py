"""The one form of a dataset, in memory and on disk: a struct of flat arrays."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a dataset besides its rows."""

    env_id: str
    env_kwargs: dict[str, Any]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    source: str
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Transitions:
    """N transitions, episode after episode, each array read-only.

    ``terminals`` marks that the task ended (the successor has no value), ``timeouts`` that only time
    or the recording ended (the successor has a value). The last row of every episode has one of them.
    """

    observations: Float32  # [N, D]
    actions: Float32  # [N, A] in the units of the environment
    rewards: Float32  # [N]
    next_observations: Float32  # [N, D]
    terminals: Bool  # [N]
    timeouts: Bool  # [N]
    episode_offsets: NDArray[np.int64]  # [episodes + 1]; episode i is rows offsets[i]:offsets[i + 1]
    info: DatasetInfo
