"""What is allowed in a dataset but seldom meant: said once, before time is spent on it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.checks import action_bounds, blocks
from unio4_lib.data.transitions import Transitions

LARGE = 1e6  # beyond it a column drowns all others, whatever it is scaled by
OUTLIER = 1e4  # times the median of what is not zero
FEW = 10  # rewards that differ from zero do not make a median
AT_BOUND = 1e-3  # closer to a bound than this share of the range counts as at the bound
SHOWN = 5


def oddities(transitions: Transitions) -> list[str]:
    """One line for each."""
    return [
        *_constant("observations", transitions.observations),
        *_constant("actions", transitions.actions),
        *_all_at_bound(transitions),
        *_large_observations(transitions.observations),
        *_outlying_reward(transitions.rewards),
    ]


def _constant(name: str, values: NDArray[np.float32]) -> Iterator[str]:
    """Columns that hold one number in all rows [N, D]."""
    if len(values) < 2:
        return
    same = np.flatnonzero(values.min(axis=0) == values.max(axis=0))
    if len(same) == values.shape[1]:
        yield f"{name} never change; nothing can be learned from them"
    elif len(same):
        shown = ", ".join(map(str, same[:SHOWN])) + (", ..." if len(same) > SHOWN else "")
        yield f"{name}: {len(same)} of {values.shape[1]} dimensions never change ({shown})"


def _all_at_bound(transitions: Transitions) -> Iterator[str]:
    low, high = action_bounds(transitions.info)
    margin = AT_BOUND * (high - low)
    actions = transitions.actions
    if all(
        ((actions[part] <= low + margin) | (actions[part] >= high - margin)).all()
        for part in blocks(len(actions))
    ):
        yield "actions: all are at a bound; are the bounds, or the units of the actions, others?"


def _large_observations(values: NDArray[np.float32]) -> Iterator[str]:
    extremes = np.maximum(np.abs(values.min(axis=0)), np.abs(values.max(axis=0)))
    column = int(extremes.argmax())
    if extremes[column] > LARGE:
        row = int(np.abs(values[:, column]).argmax())
        yield (
            f"observations: row {row}, dimension {column} is {values[row, column]:.3g}; such numbers drown "
            "all others: other units, or rows left out?"
        )


def _outlying_reward(rewards: NDArray[np.float32]) -> Iterator[str]:
    sizes = np.abs(rewards)
    row, some = int(sizes.argmax()), sizes[sizes > 0]
    usual = float(np.quantile(some, 0.5)) if len(some) >= FEW else np.inf
    if sizes[row] > LARGE or sizes[row] > OUTLIER * usual:
        beside = f", the median of the others {usual:.3g}" if np.isfinite(usual) else ""
        yield f"rewards: row {row} is {rewards[row]:.3g}{beside}; is it a mistake of the recording?"
