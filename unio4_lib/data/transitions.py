"""The one form of a dataset, in memory and on disk: a struct of flat arrays."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unio4_lib.data import checks
from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.tensor_file import map_tensors, write_tensors
from unio4_lib.errors import InputError

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

TENSOR_FILE = "transitions.safetensors"
INFO_FILE = "info.json"
FORMAT = "unio4.transitions"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
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

    @classmethod
    def build(
        cls,
        *,
        observations: Float32,
        actions: Float32,
        rewards: Float32,
        next_observations: Float32,
        terminals: Bool,
        timeouts: Bool,
        info: DatasetInfo,
        episode_offsets: NDArray[np.int64] | None = None,
        clip_actions: bool = False,
    ) -> "Transitions":
        """Check the arrays and wrap them without copying (see the fields for shapes).

        Without ``episode_offsets`` an episode ends at every row that ``terminals`` or ``timeouts`` marks.
        ``clip_actions`` cuts actions at the bounds; only then are the actions copied.
        """
        if episode_offsets is None:
            episode_offsets = offsets_from_ends(terminals, timeouts)
        arrays = (observations, actions, rewards, next_observations, terminals, timeouts, episode_offsets)
        transitions = cls(*arrays, info)
        if clip_actions:
            transitions = transitions._clipped()
        checks.check_transitions(transitions)
        return transitions._frozen()

    @property
    def num_transitions(self) -> int:
        return len(self.observations)

    @property
    def num_episodes(self) -> int:
        return len(self.episode_offsets) - 1

    @property
    def observation_dim(self) -> int:
        return int(self.observations.shape[1])

    @property
    def action_dim(self) -> int:
        return int(self.actions.shape[1])

    def episode_returns(self) -> NDArray[np.float64]:
        """Undiscounted sum of rewards of each episode: [episodes]."""
        return np.add.reduceat(self.rewards, self.episode_offsets[:-1], dtype=np.float64)

    def episode_lengths(self) -> NDArray[np.int64]:
        """Rows of each episode: [episodes]."""
        return np.diff(self.episode_offsets)

    def digest(self) -> str:
        """SHA-256 over all arrays and the info; the same before saving and after loading."""
        state = hashlib.sha256()
        for name, array in self._arrays().items():
            state.update(f"{name}|{array.dtype.name}|{list(array.shape)}|".encode())
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        state.update(json.dumps(asdict(self.info), sort_keys=True).encode())
        return state.hexdigest()

    def select_episodes(self, indices: ArrayLike) -> "Transitions":
        """The episodes of the given numbers [K], in that order; a number may come twice."""
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_ and chosen.shape == (self.num_episodes,):
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
            raise InputError(f"episodes: expected a list of at least one number, found {indices!r:.80}")
        outside = (chosen < 0) | (chosen >= self.num_episodes)
        if outside.any():
            number = chosen[outside.argmax()]
            raise InputError(
                f"episodes: there is no episode {number}; numbers run from 0 to {self.num_episodes - 1}"
            )
        lengths = self.episode_lengths()[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.episode_offsets[chosen] - offsets[:-1], lengths)
        picked = {name: getattr(self, name)[rows] for name in checks.ROW_FIELDS}
        return Transitions(**picked, episode_offsets=offsets, info=self.info)._frozen()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a new folder of a safetensors file and ``info.json``; all of it or nothing appears."""
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target}: exists already; choose a new folder or remove it first")
        description = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "transitions": self.num_transitions,
            "episodes": self.num_episodes,
            "digest": self.digest(),
            "info": asdict(self.info),
        }
        with _new_folder(target) as temporary:
            write_tensors(temporary / TENSOR_FILE, self._arrays())
            _write_text(temporary / INFO_FILE, json.dumps(description, indent=2) + "\n")
        return target

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, verify: bool = False, clip_actions: bool = False
    ) -> "Transitions":
        """Map a saved folder: arrays are read from disk only where they are used.

        The dataset is checked like any other; ``verify`` also compares the digest, before ``clip_actions``
        cuts actions at their bounds.
        """
        path = Path(folder)
        description = _read_description(path)
        arrays = map_tensors(path / TENSOR_FILE)
        for name in ARRAYS:
            if name not in arrays:
                raise InputError(f"{path / TENSOR_FILE}: no {name}; it has {', '.join(sorted(arrays))}")
        info = _info_from_json(path / INFO_FILE, description.get("info"))
        transitions = cls(**{name: arrays[name] for name in ARRAYS}, info=info)
        checks.check_shapes(transitions)
        found, stated = transitions.num_transitions, description.get("transitions")
        if found != stated:
            raise InputError(f"{path}: {found} transitions, but {INFO_FILE} says {stated}; save it again")
        if verify and transitions.digest() != description.get("digest"):
            raise InputError(
                f"{path}: its content does not fit the digest in {INFO_FILE}; save or copy it again"
            )
        if clip_actions:
            transitions = transitions._clipped()
        checks.check_transitions(transitions)
        return transitions._frozen()

    def _clipped(self) -> "Transitions":
        checks.check_info(self.info)
        checks.check_shapes(self)
        return replace(self, actions=np.clip(self.actions, *checks.action_bounds(self.info)))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in ARRAYS}

    def _frozen(self) -> "Transitions":
        return Transitions(
            **{name: _read_only(array) for name, array in self._arrays().items()}, info=self.info
        )


def describe(folder: Path) -> tuple[int, int, DatasetInfo]:
    """Rows, width of the observations and the info of a saved folder; no row is looked at."""
    info = _info_from_json(folder / INFO_FILE, _read_description(folder).get("info"))
    observations = map_tensors(folder / TENSOR_FILE).get("observations")
    if observations is None or observations.ndim != 2:
        raise InputError(f"{folder / TENSOR_FILE}: no observations [rows, dimensions]; save it again")
    return len(observations), observations.shape[1], info


ARRAYS = (*checks.ROW_FIELDS, "episode_offsets")


def offsets_from_ends(terminals: Bool, timeouts: Bool) -> NDArray[np.int64]:
    """Offsets [episodes + 1] of episodes that end at each marked row, the last row included."""
    if np.shape(terminals) != np.shape(timeouts) or np.ndim(terminals) != 1:
        raise InputError(
            f"timeouts: shape {list(np.shape(timeouts))}, but terminals has {list(np.shape(terminals))}; "
            "both must be [rows]"
        )
    ends = np.flatnonzero(np.asarray(terminals, np.bool_) | np.asarray(timeouts, np.bool_)) + 1
    rows = len(terminals)
    tail = [] if len(ends) and ends[-1] == rows else [rows]
    return np.concatenate([[0], ends, tail]).astype(np.int64)


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """One dataset of the episodes of all parts, which must share environment, sizes and action bounds."""
    if not parts:
        raise InputError("datasets: nothing to concatenate; give at least one")
    first = parts[0]
    for number, part in enumerate(parts[1:], start=1):
        for name, value, expected in (
            ("env_id", part.info.env_id, first.info.env_id),
            ("env_kwargs", part.info.env_kwargs, first.info.env_kwargs),
            ("action_low", part.info.action_low, first.info.action_low),
            ("action_high", part.info.action_high, first.info.action_high),
            ("observation dimensions", part.observation_dim, first.observation_dim),
        ):
            if value != expected:
                raise InputError(
                    f"datasets: {name} of part {number} is {value}, of part 0 {expected}; must be equal"
                )
    shifts = np.cumsum([0] + [part.num_transitions for part in parts])
    offsets = [part.episode_offsets[1:] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
    merged = {name: np.concatenate([getattr(part, name) for part in parts]) for name in checks.ROW_FIELDS}
    info = replace(first.info, source=" + ".join(part.info.source for part in parts))
    return Transitions(
        **merged, episode_offsets=np.concatenate([[0], *offsets]).astype(np.int64), info=info
    )._frozen()


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A sibling that becomes ``target`` at the end, or disappears when anything fails."""
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        _sync_folder(temporary)
        temporary.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}); nothing was kept"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_description(folder: Path) -> Mapping[str, Any]:
    path = folder / INFO_FILE
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one written by Transitions.save")
    if not path.is_file():
        raise InputError(f"{path}: no such file; a dataset folder has {INFO_FILE} and {TENSOR_FILE}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); save the dataset again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InputError(f"{path}: not the description of a dataset; 'format' must be {FORMAT!r}")
    if description.get("version") != FORMAT_VERSION:
        raise InputError(f"{path}: version {description.get('version')}, this release reads {FORMAT_VERSION}")
    return description


def _info_from_json(path: Path, entry: Any) -> DatasetInfo:
    try:
        values = dict(entry)
        for name in ("action_low", "action_high"):
            values[name] = tuple(float(value) for value in values[name])
        return DatasetInfo(**values)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: 'info' cannot be read ({error}); save the dataset again") from error
