"""Observation statistics, reward scales and Monte-Carlo returns of whole datasets."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.checks import blocks
from unio4_lib.data.transitions import Transitions

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Offsets = NDArray[np.int64]

RewardScaling = Literal["none", "number", "normal", "dynamic"]
STD_FLOOR = 1e-3
RETURN_RANGE = 1000.0  # IQL's: best minus worst trajectory return after scaling
SAME_RETURNS = 1e-6  # returns closer than this share of the largest differ by rounding alone


@dataclass(frozen=True, eq=False)
class ObservationStatistics:
    """Mean and divisor of each observation dimension; a constant dimension becomes exactly 0."""

    mean: Float32  # [D]
    std: Float32  # [D], at least the floor

    def apply(self, observations: Float32) -> Float32:
        """(s − mean) / std for [..., D], as float32."""
        return (observations - self.mean) / self.std


def observation_statistics(observations: Float32, *, eps: float = STD_FLOOR) -> ObservationStatistics:
    """Mean and population std over all rows of [N, D], summed in float64; std is at least ``eps``.

    The floor replaces the paper's 1e-10, with which a dimension that only carries rounding noise would be
    blown up to the size of the others.
    """
    rows, width = observations.shape
    total = np.zeros(width)
    low, high = observations[0].copy(), observations[0].copy()
    for block in blocks(rows):
        total += observations[block].sum(axis=0, dtype=np.float64)
        np.minimum(low, observations[block].min(axis=0), out=low)
        np.maximum(high, observations[block].max(axis=0), out=high)
    # The exact value for constant dimensions: a rounded mean would leave them slightly off 0.
    mean = np.where(low == high, low, total / rows).astype(np.float32)
    squares = np.zeros(width)
    for block in blocks(rows):
        squares += np.square(observations[block] - total / rows).sum(axis=0)
    std = np.maximum(np.sqrt(squares / rows), eps).astype(np.float32)
    return ObservationStatistics(mean, std)


@dataclass(frozen=True, eq=False)
class ScaledRewards:
    """Rewards [N] in the scale of the critics; ``factor`` where one number did it, else None."""

    rewards: Float32
    factor: float | None


def scale_rewards(
    transitions: Transitions, scaling: RewardScaling, *, number: float = 0.1, discount: float = 0.99
) -> ScaledRewards:
    """Scale rewards as selected.

    none: as they are. number: times ``number``. normal: times 1000 / (best − worst episode return), as
    IQL, but as they are where all episodes return the same. dynamic: each reward over the running std of
    the running discounted return, see ``running_return_std``. Differs from the Uni-O4 code, which left the
    reward of the last row of each episode unscaled under dynamic, so that endings stood out by the scale;
    here all rows are scaled alike.
    """
    if scaling == "dynamic":
        std = running_return_std(transitions.rewards, transitions.episode_offsets, discount)
        return ScaledRewards((transitions.rewards / std).astype(np.float32), None)
    factor = {"none": 1.0, "number": number}.get(scaling)
    if factor is None:
        factor = _return_range_factor(transitions)
    return ScaledRewards(transitions.rewards * np.float32(factor), float(factor))


def _return_range_factor(transitions: Transitions) -> float:
    spread = return_range(transitions)
    return RETURN_RANGE / spread if spread > 0 else 1.0


def return_range(transitions: Transitions) -> float:
    """Best minus worst episode return; exactly 0 where all episodes return the same but for rounding."""
    returns = transitions.episode_returns()
    spread = float(returns.max() - returns.min())
    return spread if spread > SAME_RETURNS * float(np.abs(returns).max()) else 0.0


def running_return_std(rewards: Float32, episode_offsets: Offsets, discount: float) -> Float64:
    """Running std [N] of R_t = r_t + discount · R_{t−1} (restarted with each episode) over the rows so far.

    std_t = sqrt((1 + Σ_{i≤t} (R_i − mean_t)²) / t): Welford's sum of squares starts at 1, so the first row
    has std 1. Computed from running sums in float64 of returns less their mean, against cancellation.
    """
    count = len(rewards)
    mirrored = count - episode_offsets[::-1]
    returns = discounted_returns(rewards[::-1], mirrored, discount)[::-1]
    centered = returns - returns.mean()
    rows = np.arange(1, count + 1)
    sums = np.cumsum(centered)
    squares = np.cumsum(np.square(centered, out=centered), out=centered)
    return np.sqrt((1 + np.maximum(squares - sums**2 / rows, 0)) / rows)


def discounted_returns(
    rewards: Float32 | Float64,
    episode_offsets: Offsets,
    discount: float,
    bootstrap: Float64 | Float32 | None = None,
) -> Float64:
    """Discounted return-to-go of each row: G_t = r_t + discount · G_{t+1} inside an episode.

    rewards [N], episode_offsets [episodes + 1], result [N] in float64. ``bootstrap`` [episodes] is the value
    of the state after the last row (0 where the task ended): the last row gets r + discount · bootstrap.

    A segmented scan by doubling: after k rounds each row holds the sum over 2^k rows, so the number of passes
    is log2 of the longest episode, whatever the mix of lengths.
    """
    returns = np.array(rewards, dtype=np.float64)
    lengths = np.diff(episode_offsets)
    if bootstrap is not None:
        if np.shape(bootstrap) != lengths.shape:
            raise ValueError(
                f"bootstrap: shape {np.shape(bootstrap)}, must be {lengths.shape}, one per episode"
            )
        returns[episode_offsets[1:] - 1] += discount * np.asarray(bootstrap, dtype=np.float64)
    # Rows that follow inside the same episode.
    following = np.repeat(episode_offsets[1:], lengths) - np.arange(1, len(returns) + 1)
    longest = int(lengths.max())
    shift, weight = 1, float(discount)
    while shift < longest and weight > 0:
        later = np.where(following[:-shift] >= shift, returns[shift:], 0.0)
        later *= weight
        returns[:-shift] += later
        shift, weight = 2 * shift, weight * weight
    return returns
