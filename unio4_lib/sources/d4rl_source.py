"""Read files in the layout of D4RL: one HDF5 file of flat arrays, with or without s' and timeouts."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.checks import blocks, same_state
from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.memory import check_memory, check_stored
from unio4_lib.data.numbers import NUMBER_KINDS, marks
from unio4_lib.data.reference import reference_scores
from unio4_lib.data.transitions import Transitions, offsets_from_ends
from unio4_lib.errors import InputError
from unio4_lib.files import local_path
from unio4_lib.sources.hdf5_file import find, hdf5_file, read_into

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

# Families whose observations are those of a current environment. D4RL's ant has 111 numbers, Ant-v5 105,
# and its mazes and kitchens differ too, so these need the environment from the user.
ENVIRONMENTS = {
    "hopper": "Hopper-v5",
    "halfcheetah": "HalfCheetah-v5",
    "walker2d": "Walker2d-v5",
    "pen": "AdroitHandPen-v1",
    "hammer": "AdroitHandHammer-v1",
    "door": "AdroitHandDoor-v1",
    "relocate": "AdroitHandRelocate-v1",
}

ANTMAZE_REWARD_SCALE, ANTMAZE_REWARD_SHIFT = 10.0, -5.0  # 0 and 1 become -5 and 5, as in Uni-O4
ANTMAZE_JUMP = 10.0  # a step this many times the mean one is the start of another episode


@dataclass(frozen=True)
class D4rlOptions:
    """What the file itself does not say."""

    env_id: str | None = None  # else from the file name
    max_episode_steps: int | None = None  # for files without timeouts
    antmaze: bool = False  # rebuild timeouts from jumps of the position, rewards 10 r - 5
    action_low: float = -1.0
    action_high: float = 1.0


@dataclass
class _Raw:
    observations: Float32
    actions: Float32
    rewards: Float32
    next_observations: Float32 | None
    terminals: Bool
    timeouts: Bool | None


def load_d4rl(path: str, options: D4rlOptions, *, clip_actions: bool = False) -> Transitions:
    """The episodes of a file; see docs/datasets.md for what happens at their ends."""
    file = local_path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    env_id = options.env_id or env_of_file(file)
    raw = _read_file(file)
    ends, jumps = _episode_ends(raw, options)
    if options.antmaze:
        raw.rewards = ANTMAZE_REWARD_SCALE * raw.rewards + np.float32(ANTMAZE_REWARD_SHIFT)
    low_score, high_score = reference_scores(env_id) or (None, None)
    width = raw.actions.shape[1]
    info = DatasetInfo(
        env_id=env_id,
        env_kwargs={},
        action_low=(options.action_low,) * width,
        action_high=(options.action_high,) * width,
        source=f"d4rl:{file.name}",
        ref_min_score=low_score,
        ref_max_score=high_score,
        extra={"file_rows": len(raw.rewards), "ends_found_by_jump": jumps, "antmaze": options.antmaze},
    )
    return _build(raw, ends, info, clip_actions)


def env_of_file(file: Path) -> str:
    """The environment that the name of a file stands for."""
    family = re.split(r"[-_]", file.stem, maxsplit=1)[0].lower()
    if family not in ENVIRONMENTS:
        raise InputError(
            f"{file.name}: no environment known for {family!r}; add ?env=<environment id> "
            f"(known from file names: {', '.join(ENVIRONMENTS)})"
        )
    return ENVIRONMENTS[family]


def _read_file(path: Path) -> _Raw:
    with hdf5_file(path) as file:
        raw = _Raw(
            observations=_read_array(file, "observations", 2),
            actions=_read_array(file, "actions", 2),
            rewards=_read_array(file, "rewards", 1),
            next_observations=_read_array(file, "next_observations", 2)
            if find(file, "next_observations") is not None
            else None,
            terminals=marks("terminals", _read_array(file, "terminals", 1)),
            timeouts=marks("timeouts", _read_array(file, "timeouts", 1))
            if find(file, "timeouts") is not None
            else None,
        )
    _check_lengths(raw)
    return raw


def _read_array(file: h5py.File, name: str, rank: int) -> Float32:
    """One dataset as float32, converted while it is read; a trailing axis of one is dropped from vectors."""
    dataset = find(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(
            f"no {name} in the file, which has {', '.join(sorted(file)) or 'nothing'}; D4RL needs it"
        )
    shape: tuple[int, ...] = dataset.shape or ()
    if rank == 1 and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    if len(shape) != rank or dataset.dtype.kind not in NUMBER_KINDS:
        wanted = "[rows]" if rank == 1 else "[rows, dimensions]"
        raise InputError(f"{name}: {dataset.dtype} of shape {list(shape)}, must be numbers of shape {wanted}")
    check_memory(name, dataset.size, np.dtype(np.float32).itemsize)
    check_stored(name, dataset.size, dataset.dtype.itemsize, Path(file.filename))
    array = np.empty(shape, np.float32)
    read_into(array, dataset)
    return array


def _check_lengths(raw: _Raw) -> None:
    rows = len(raw.observations)
    if rows == 0:
        raise InputError("observations: no rows; the file is empty")
    for name, array in vars(raw).items():
        if array is not None and len(array) != rows:
            raise InputError(
                f"{name}: {len(array)} rows, but observations has {rows}; all fields need as many"
            )
    following = raw.next_observations
    if following is not None and following.shape != raw.observations.shape:
        raise InputError(
            f"next_observations: shape {list(following.shape)}, must be that of observations, "
            f"{list(raw.observations.shape)}"
        )


def _episode_ends(raw: _Raw, options: D4rlOptions) -> tuple[Bool, int]:
    """Which rows [N] end an episode, and how many of these only a jump of the state shows."""
    ends = raw.terminals.copy()
    if options.antmaze:
        ends |= _position_jumps(raw.observations)
    elif raw.timeouts is not None:
        ends |= raw.timeouts
    elif raw.next_observations is None and options.max_episode_steps is None:
        raise InputError(
            "the file has neither next_observations nor timeouts, so that ends by time cannot be seen; "
            "add ?max_episode_steps=<steps>, such as 1000"
        )
    marked = np.count_nonzero(ends)
    if raw.next_observations is not None:
        ends |= _state_jumps(raw.observations, raw.next_observations)
    jumps = int(np.count_nonzero(ends) - marked)
    if options.max_episode_steps is not None:
        ends |= _every(options.max_episode_steps, ends)
    ends[-1] = True
    return ends, jumps


def _position_jumps(observations: Float32) -> Bool:
    if observations.shape[1] < 2:
        raise InputError(
            f"observations: {observations.shape[1]} dimensions; antmaze=true needs the position x, y"
        )
    jumps = np.zeros(len(observations), np.bool_)
    steps = np.linalg.norm(np.diff(observations[:, :2], axis=0), axis=1)
    if steps.size:
        jumps[:-1] = steps > ANTMAZE_JUMP * steps.mean(dtype=np.float64)
    return jumps


def _state_jumps(observations: Float32, next_observations: Float32) -> Bool:
    jumps = np.zeros(len(observations), np.bool_)
    for block in blocks(len(observations) - 1):
        following = observations[block.start + 1 : block.stop + 1]
        jumps[block] = ~same_state(next_observations[block], following).all(axis=1)
    return jumps


def _every(steps: int, ends: Bool) -> Bool:
    """Each ``steps``-th row counted from the last end before it."""
    rows = np.arange(len(ends))
    starts = np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1])
    position = rows - starts[np.searchsorted(starts, rows, side="right") - 1]
    return (position + 1) % steps == 0


def _build(raw: _Raw, ends: Bool, info: DatasetInfo, clip_actions: bool) -> Transitions:
    arrays: dict[str, NDArray[Any]] = {
        "observations": raw.observations,
        "actions": raw.actions,
        "rewards": raw.rewards,
        "terminals": raw.terminals,
    }
    if raw.next_observations is not None:
        arrays["next_observations"] = raw.next_observations
    else:
        arrays, ends = _successors(arrays, ends)
    terminals = arrays["terminals"]
    return Transitions.build(
        **arrays,
        timeouts=ends & ~terminals,
        episode_offsets=offsets_from_ends(terminals, ends),
        info=info,
        clip_actions=clip_actions,
    )


def _successors(arrays: dict[str, NDArray[Any]], ends: Bool) -> tuple[dict[str, NDArray[Any]], Bool]:
    """Take s' from the next row; the last row of an episode that no terminal ends has none and is dropped."""
    terminals, states = arrays["terminals"], arrays["observations"]
    keep = terminals | ~ends
    if not keep.any():
        raise InputError("observations: no episode has two rows, and s' is taken from the next row")
    # The row before a dropped one is the new last row, unless an episode before it ends there already.
    new_ends = ends.copy()
    new_ends[:-1] |= ~keep[1:]
    rows = np.flatnonzero(keep)
    # A terminal row keeps its own state: its successor has no value, so nothing reads it.
    successor = np.where(terminals[rows], rows, rows + 1)
    kept = {name: array[rows] for name, array in arrays.items()}
    kept["next_observations"] = states[successor]
    return kept, new_ends[rows]
