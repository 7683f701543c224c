"""Scores of a policy in its environment: whole episodes, seeded, and none of them over-counted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.reference import reference_scores as reference_scores  # to be found here too
from unio4_lib.errors import InputError
from unio4_lib.sim.base import Array, BatchSim, Flags, StepResult

PolicyAct = Callable[[Array], Array]
"""Observations [N, D] -> actions [N, A]."""

SimFactory = Callable[[int], BatchSim]
"""Number of environments -> a simulator."""

MAX_PARALLEL_EPISODES = 64  # beyond this more environments only cost memory

BOOTSTRAP_RESAMPLES = 2000
LONGEST_EPISODE = 100_000  # steps; only where the environment itself has no limit


@dataclass(frozen=True, slots=True)
class EpisodeStats:
    """Undiscounted returns and lengths of whole episodes, ordered by environment, then by time."""

    returns: Array  # [n]
    lengths: NDArray[np.int64]  # [n]

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean; 0 for a single episode, which says nothing about spread."""
        n = len(self.returns)
        return float(self.returns.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0

    def bootstrap_interval(self, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
        """Percentile interval of the mean over episodes resampled with replacement."""
        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level}, expected a number between 0 and 1")
        n = len(self.returns)
        rows = np.random.default_rng(seed).integers(n, size=(BOOTSTRAP_RESAMPLES, n))
        means = self.returns[rows].mean(axis=1)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


@runtime_checkable
class _MaskedSim(Protocol):
    """A simulator that can leave environments alone."""

    def step_active(self, actions: Array, active: Flags) -> StepResult: ...


def evaluate(
    policy_act: PolicyAct,
    sim: BatchSim | SimFactory,
    episodes: int,
    seed: int,
) -> EpisodeStats:
    """Run ``episodes`` whole episodes of ``policy_act``, as many at once as there are environments.

    Each environment has a fixed quota and its first episodes count. Taking whichever episodes end first
    would favor short ones, which are the bad ones where falling ends the episode. An environment whose
    quota is full is no longer simulated. ``sim`` is a simulator (it is reset, and left where it stands)
    or a function that makes one of a given size, which is closed again.

    Where the environment has no time limit, an episode of more than ``LONGEST_EPISODE`` steps is an
    ``InputError``: some policies would never finish it.

    The policy always sees all rows [N, D]; what it answers for finished environments has no effect.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, expected at least 1")
    if not callable(sim):
        return _Evaluation(sim, episodes).run(policy_act, seed)
    made = sim(min(episodes, MAX_PARALLEL_EPISODES))
    try:
        return _Evaluation(made, episodes).run(policy_act, seed)
    finally:
        made.close()


class _Evaluation:
    """Quotas and running sums of one call of ``evaluate``."""

    def __init__(self, sim: BatchSim, episodes: int) -> None:
        self.sim = sim
        self.masked = sim if isinstance(sim, _MaskedSim) else None
        n = sim.num_envs
        self.quotas = episodes // n + (np.arange(n) < episodes % n)  # [N]
        self.returns: list[list[float]] = [[] for _ in range(n)]
        self.lengths: list[list[int]] = [[] for _ in range(n)]
        self.running_return = np.zeros(n)
        self.running_length = np.zeros(n, dtype=np.int64)

    def run(self, policy_act: PolicyAct, seed: int) -> EpisodeStats:
        observations = self.sim.reset(seed)
        active: Flags = self.quotas > 0
        while active.any():
            result = self._step(policy_act(observations), active)
            observations = result.observations
            self._record(result, active)
            self._check_length()
        returns = np.array([value for row in self.returns for value in row])
        lengths = np.array([value for row in self.lengths for value in row], dtype=np.int64)
        return EpisodeStats(returns, lengths)

    def _step(self, actions: Array, active: Flags) -> StepResult:
        if self.masked is None or active.all():
            return self.sim.step(actions)
        return self.masked.step_active(actions, active)

    def _check_length(self) -> None:
        if self.sim.max_episode_steps is None and self.running_length.max() >= LONGEST_EPISODE:
            raise InputError(
                f"environment {self.sim.env_id!r} has no time limit, and an episode of the evaluation did "
                f"not end in {LONGEST_EPISODE} steps: set max_episode_steps in env_kwargs"
            )

    def _record(self, result: StepResult, active: Flags) -> None:
        """Count one step; clears ``active`` [N] where the quota is now full."""
        self.running_return += np.where(active, result.rewards, 0.0)
        self.running_length += active
        for i in np.flatnonzero((result.terminals | result.timeouts) & active):
            value, length = float(self.running_return[i]), int(self.running_length[i])
            if not np.isfinite(value):
                episode = len(self.returns[i])
                raise FloatingPointError(
                    f"{self.sim.env_id}: return of episode {episode} in environment {i} is {value} "
                    f"after {length} steps, expected a finite number"
                )
            self.returns[i].append(value)
            self.lengths[i].append(length)
            self.running_return[i], self.running_length[i] = 0.0, 0
            active[i] = len(self.returns[i]) < self.quotas[i]


def normalized_score(mean: float, ref_min: float, ref_max: float) -> float:
    """``100 (mean - ref_min) / (ref_max - ref_min)``: 0 is a random policy, 100 an expert."""
    if not ref_max > ref_min:
        raise ValueError(f"reference scores are {ref_min} and {ref_max}, expected the first to be smaller")
    return 100.0 * (mean - ref_min) / (ref_max - ref_min)
