"""What a dataset has to fulfil when it enters; every failure is one line with the place and the remedy.

All checks run over blocks of rows, so that their temporary arrays stay small next to the data.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.info import DatasetInfo
from unio4_lib.errors import InputError

BLOCK_ROWS = 1 << 16
ACTION_TOLERANCE = 1e-5  # rounding of float32 and of simulators that clip in another precision
# Recorders that store s and s' in different precisions leave differences of one unit in the last place.
CONTINUITY_TOLERANCE = 1e-5

ROW_FIELDS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
MATRIX_FIELDS = ("observations", "actions", "next_observations")
FLOAT_FIELDS = ("observations", "actions", "rewards", "next_observations")


class Rows(Protocol):
    """The fields of Transitions, which itself imports this module."""

    @property
    def observations(self) -> NDArray[np.float32]: ...  # [N, D]

    @property
    def actions(self) -> NDArray[np.float32]: ...  # [N, A]

    @property
    def rewards(self) -> NDArray[np.float32]: ...  # [N]

    @property
    def next_observations(self) -> NDArray[np.float32]: ...  # [N, D]

    @property
    def terminals(self) -> NDArray[np.bool_]: ...  # [N]

    @property
    def timeouts(self) -> NDArray[np.bool_]: ...  # [N]

    @property
    def episode_offsets(self) -> NDArray[np.int64]: ...  # [episodes + 1]

    @property
    def info(self) -> DatasetInfo: ...


def check_transitions(transitions: Rows) -> None:
    """Raise an InputError for the first thing that is wrong."""
    check_info(transitions.info)
    check_shapes(transitions)
    check_boundaries(transitions.terminals, transitions.timeouts, transitions.episode_offsets)
    for name in FLOAT_FIELDS:
        check_finite(name, getattr(transitions, name))
    check_actions(transitions.actions, transitions.info)
    check_continuity(transitions)


def blocks(rows: int) -> Iterator[slice]:
    """Slices that cover 0..rows in order."""
    for start in range(0, rows, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, rows))


def first_row(rows: int, broken: Callable[[slice], NDArray[np.bool_]]) -> tuple[int, int] | None:
    """The first (row, column) for which ``broken(block)`` ([n] or [n, D]) holds."""
    for block in blocks(rows):
        mask = broken(block)
        if mask.any():
            row, column = divmod(int(mask.argmax()), mask.shape[1] if mask.ndim == 2 else 1)
            return block.start + row, column
    return None


def check_info(info: DatasetInfo) -> None:
    """Action bounds are finite and ordered, and the rest can be written as JSON."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is no float32 becomes inf, and is refused
        low, high = np.asarray(info.action_low, np.float32), np.asarray(info.action_high, np.float32)
        range_ = high - low if low.shape == high.shape else low
    if low.ndim != 1 or low.shape != high.shape or low.size == 0:
        raise InputError(
            f"info: action_low has {low.size} values and action_high {high.size}; "
            "give one per action dimension"
        )
    wrong = ~(np.isfinite(range_) & (low < high))
    if wrong.any():
        column = int(wrong.argmax())
        raise InputError(
            f"info: action bounds of dimension {column} are {info.action_low[column]:g} and "
            f"{info.action_high[column]:g}; both must be finite in float32, as their difference, and the low "
            "one smaller"
        )
    if not info.env_id:
        raise InputError("info: env_id is empty; give the id of the environment, such as Hopper-v5")
    try:
        json.dumps(asdict(info), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"info: scores, env_kwargs and extra must be plain JSON values ({error})") from error
    low_score, high_score = info.ref_min_score, info.ref_max_score
    for score in (low_score, high_score):
        if score is not None and not isinstance(score, int | float):
            raise InputError(f"info: reference score {score!r:.60}; expected a number")
    if low_score is not None and high_score is not None and low_score >= high_score:
        raise InputError(
            f"info: ref_min_score {low_score:g} must be smaller than ref_max_score {high_score:g}"
        )


def check_shapes(transitions: Rows) -> None:
    """Ranks, dtypes, equal lengths and widths, by field name."""
    rows = _check_field(transitions, "observations")
    for name in ROW_FIELDS[1:]:
        found = _check_field(transitions, name)
        if found != rows:
            raise InputError(
                f"{name}: {found} rows, but observations has {rows}; all fields need as many rows"
            )
    if rows == 0:
        raise InputError("observations: no rows; a dataset needs at least one transition")
    width, expected = transitions.next_observations.shape[1], transitions.observations.shape[1]
    if width != expected:
        raise InputError(f"next_observations: {width} dimensions, but observations has {expected}")
    width, expected = transitions.actions.shape[1], len(transitions.info.action_low)
    if width != expected:
        raise InputError(f"actions: {width} dimensions, but the action bounds have {expected}")


def _check_field(transitions: Rows, name: str) -> int:
    array = getattr(transitions, name)
    dtype = np.dtype(np.float32 if name in FLOAT_FIELDS else np.bool_)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: found {type(array).__name__}, must be a numpy array of {dtype}")
    if array.dtype != dtype:
        raise InputError(f"{name}: dtype {array.dtype}, must be {dtype}; convert with .astype('{dtype}')")
    rank = 2 if name in MATRIX_FIELDS else 1
    if array.ndim != rank:
        letters = "[rows, dimensions]" if rank == 2 else "[rows]"
        raise InputError(f"{name}: shape {list(array.shape)}, must be {letters}")
    if rank == 2 and array.shape[1] == 0:
        raise InputError(f"{name}: shape {list(array.shape)}, must have at least one dimension")
    return int(array.shape[0])


def check_offsets(offsets: NDArray[np.int64], rows: int) -> None:
    """[episodes + 1] int64, from 0 to the number of rows, no episode without rows."""
    if offsets.ndim != 1 or offsets.dtype != np.int64 or offsets.size < 2:
        raise InputError(
            f"episode_offsets: {offsets.dtype} of shape {list(offsets.shape)}, must be int64 [episodes + 1]"
        )
    lengths = np.diff(offsets)
    if (lengths < 1).any():
        episode = int((lengths < 1).argmax())
        raise InputError(
            f"episode_offsets: episode {episode} has {lengths[episode]} rows, must have at least one"
        )
    if offsets[0] != 0 or offsets[-1] != rows:
        raise InputError(
            f"episode_offsets: run from {offsets[0]} to {offsets[-1]}, must run from 0 to the {rows} rows"
        )


def check_boundaries(
    terminals: NDArray[np.bool_], timeouts: NDArray[np.bool_], offsets: NDArray[np.int64]
) -> None:
    """The last row of an episode has exactly one of the two marks, no other row has any."""
    check_offsets(offsets, len(terminals))
    last = offsets[1:] - 1
    both = terminals & timeouts
    if both.any():
        row = int(both.argmax())
        raise InputError(f"terminals, timeouts: row {row} has both; an episode ends by one of them")
    ends = terminals | timeouts
    unmarked = ~ends[last]
    if unmarked.any():
        episode = int(unmarked.argmax())
        raise InputError(
            f"terminals, timeouts: row {last[episode]}, the last of episode {episode}, has neither; "
            "mark a recording that stops as timeout"
        )
    if int(np.count_nonzero(ends)) != len(last):
        ends[last] = False
        row = int(ends.argmax())
        name = "terminals" if terminals[row] else "timeouts"
        episode = int(np.searchsorted(offsets, row, side="right")) - 1
        raise InputError(
            f"{name}: row {row} is marked, but episode {episode} goes on to row {last[episode]}; "
            "only the last row of an episode may be marked"
        )


def check_finite(name: str, array: NDArray[np.float32]) -> None:
    """No NaN and no infinity in [N] or [N, D]."""
    place = first_row(len(array), lambda block: ~np.isfinite(array[block]))
    if place is None:
        return
    row, column = place
    value = array[row] if array.ndim == 1 else array[row, column]
    dimension = "" if array.ndim == 1 else f", dimension {column}"
    raise InputError(f"{name}: row {row}{dimension} is {value}, must be a finite number")


def action_bounds(info: DatasetInfo) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low and high, each [A]."""
    return np.asarray(info.action_low, np.float32), np.asarray(info.action_high, np.float32)


def check_actions(actions: NDArray[np.float32], info: DatasetInfo) -> None:
    """Every action [N, A] within its bounds, up to rounding."""
    low, high = action_bounds(info)
    slack = ACTION_TOLERANCE * np.maximum(1, np.maximum(np.abs(low), np.abs(high)))
    floor, ceiling = low - slack, high + slack
    place = first_row(len(actions), lambda block: (actions[block] < floor) | (actions[block] > ceiling))
    if place is None:
        return
    row, column = place
    raise InputError(
        f"actions: row {row}, dimension {column} is {actions[row, column]:.7g}, must be within "
        f"[{low[column]:g}, {high[column]:g}]; clip_actions=true cuts what sticks out"
    )


def same_state(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Elementwise: equal up to the rounding of float32."""
    return np.abs(first - second) <= CONTINUITY_TOLERANCE * (1 + np.abs(first))


def check_continuity(transitions: Rows) -> None:
    """Inside an episode s' of a row is s of the next row."""
    states, successors = transitions.observations, transitions.next_observations
    ends = transitions.terminals | transitions.timeouts

    def broken(block: slice) -> NDArray[np.bool_]:
        following = slice(block.start + 1, block.stop + 1)
        if np.array_equal(successors[block], states[following]):
            return np.zeros((1, 1), dtype=np.bool_)
        return ~(same_state(successors[block], states[following]) | ends[block, None])

    place = first_row(len(states) - 1, broken)
    if place is None:
        return
    row, column = place
    episode = int(np.searchsorted(transitions.episode_offsets, row, side="right")) - 1
    found, expected = successors[row, column], states[row + 1, column]
    raise InputError(
        f"next_observations: row {row}, dimension {column} is {found:.7g}, but observations of row {row + 1} "
        f"of the same episode ({episode}) has {expected:.7g}; they must be equal"
    )
