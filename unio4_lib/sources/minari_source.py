"""Read Minari datasets into flat arrays, each byte once."""

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from unio4_lib.data.flatten import batch_shape, flat_dim, flatten_batch
from unio4_lib.data.info import DatasetInfo
from unio4_lib.data.memory import check_memory, check_stored
from unio4_lib.data.numbers import as_numbers, marks
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.files import read_plain
from unio4_lib.sources.hdf5_file import check_numbers, find, hdf5_file, read_into
from unio4_lib.sources.hub import unreachable_hub
from unio4_lib.sources.minari_metadata import METADATA_FILE, dataset_info, dataset_spaces, megabytes, sizes

DATA_FILE = "main_data.hdf5"
SUMMARY_EPISODES = 200  # enough for a mean return in a list
FLAG_FIELDS = ("terminations", "truncations")
OTHER_WAYS = "copy the dataset's folder there, or record one: unio4 dataset collect"


def datasets_root() -> Path:
    """Where Minari keeps datasets on this machine."""
    path = os.environ.get("MINARI_DATASETS_PATH")
    return Path(path) if path else Path.home() / ".minari" / "datasets"


def local_ids() -> list[str]:
    """Ids of the datasets that are here, sorted."""
    root = datasets_root()
    found = []
    for folder, inner, _ in os.walk(root):
        if "data" in inner:
            inner.clear()  # episodes of an arrow dataset are thousands of folders
            if (Path(folder) / "data" / METADATA_FILE).is_file():
                found.append(Path(folder).relative_to(root).as_posix())
    return sorted(found)


def read_metadata(dataset_id: str) -> dict[str, Any]:
    """The metadata of a local dataset."""
    path = datasets_root() / dataset_id / "data" / METADATA_FILE
    try:
        metadata = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download or create the dataset again") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: not a JSON object; download or create the dataset again")
    return metadata


def load_minari(
    dataset_id: str, *, env_id: str | None = None, clip_actions: bool = False, download: bool = True
) -> Transitions:
    """Every episode of a dataset that is here, or that Minari can download."""
    if not (datasets_root() / dataset_id / "data").is_dir():
        _fetch(dataset_id, download)
    metadata = read_metadata(dataset_id)
    data_format = metadata.get("data_format", "hdf5")
    if data_format not in ("hdf5", "arrow"):
        raise InputError(f"data_format of {dataset_id} is {data_format!r:.60}; hdf5 and arrow can be read")
    observation_space, action_space = dataset_spaces(dataset_id, metadata)
    info = dataset_info(dataset_id, metadata, action_space, env_id)
    stored = datasets_root() / dataset_id / "data" / DATA_FILE
    buffer = _Buffer(*sizes(metadata), observation_space, action_space, stored)
    read = _read_hdf5 if data_format == "hdf5" else _read_arrow
    with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, which the checks name
        read(dataset_id, buffer)
    return buffer.build(info, clip_actions)


def expect(dataset_id: str, seconds: float) -> None:
    """A dataset is here, or the place that it is downloaded from answers in time."""
    if (datasets_root() / dataset_id / "data").is_dir():
        return
    unreachable = unreachable_hub(seconds)
    if unreachable is not None:
        raise InputError(f"{_not_here(dataset_id)}, and {unreachable}; {OTHER_WAYS}")


def _not_here(dataset_id: str) -> str:
    ids = local_ids()
    nearest = difflib.get_close_matches(dataset_id, ids, n=1, cutoff=0.0)
    hint = f"nearest here: {nearest[0]}" if nearest else "no dataset is here"
    return f"not in {datasets_root()} ({hint})"


def _fetch(dataset_id: str, download: bool) -> None:
    where = _not_here(dataset_id)
    if not download:
        raise InputError(f"{where}; set MINARI_DATASETS_PATH or allow the download")
    unreachable = unreachable_hub()
    if unreachable is not None:
        raise InputError(f"{where}, and {unreachable}; {OTHER_WAYS}")
    import minari  # only now: it is slow to import and a local dataset does not need it

    try:
        # Minari reports with print; standard output is for results.
        with contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(dataset_id)
    except Exception as error:  # each remote store of Minari has its own exceptions
        reason = " ".join(str(error).split())[:240].rstrip(" .") or type(error).__name__
        raise InputError(f"{where}, and the download failed: {reason}; {OTHER_WAYS}") from error
    if not (datasets_root() / dataset_id / "data").is_dir():
        raise InputError(f"{where}, and the download brought nothing")


class _Buffer:
    """Flat arrays of the final size, filled episode by episode."""

    def __init__(
        self,
        steps: int,
        episodes: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        stored: Path,
    ) -> None:
        self.observation_space = observation_space
        self.episodes = episodes
        self.action_shape = action_space.shape
        dim, width = flat_dim("observation_space", observation_space), int(np.prod(action_space.shape))
        check_memory("total_steps", steps, 4 * (2 * dim + width + 1))
        if stored.is_file():  # of the many small files of arrow nothing is said
            check_stored("total_steps", steps, dim, stored)
        self.observations = np.empty((steps, dim), np.float32)
        self.next_observations = np.empty((steps, dim), np.float32)
        self.actions = np.empty((steps, width), np.float32)
        self.rewards = np.empty(steps, np.float32)
        self.flags = {name: np.empty(steps, np.bool_) for name in FLAG_FIELDS}
        self.offsets = np.zeros(episodes + 1, np.int64)
        self.filled = 0

    def start(self, steps: int) -> slice:
        """The rows of the next episode."""
        episode, first = self.filled, int(self.offsets[self.filled])
        if steps < 1:
            raise InputError(f"rewards: episode {episode} has no rows; remove it from the dataset")
        if first + steps > len(self.rewards):
            raise InputError(
                f"rewards: more rows than the {len(self.rewards)} of total_steps (in episode {episode}); "
                "the metadata does not fit the data"
            )
        self.filled += 1
        self.offsets[self.filled] = first + steps
        return slice(first, first + steps)

    def put_observations(self, rows: slice, states: NDArray[Any]) -> None:
        """States [T + 1, D] of an episode: the first T are s, the last T are s'."""
        self.observations[rows] = states[:-1]
        self.next_observations[rows] = states[1:]

    def check_rows(self, name: str, found: int, expected: int) -> None:
        if found != expected:
            raise InputError(
                f"{name}: {found} rows in episode {self.filled - 1}, must be {expected} (observations have "
                "one more row than rewards, the rest as many)"
            )

    def build(self, info: DatasetInfo, clip_actions: bool) -> Transitions:
        rows = int(self.offsets[self.filled])
        if self.filled != self.episodes or rows != len(self.rewards):
            raise InputError(
                f"found {self.filled} episodes and {rows} rows, but the metadata says {self.episodes} and "
                f"{len(self.rewards)}"
            )
        terminals, timeouts = self.flags["terminations"], self.flags["truncations"]
        last = self.offsets[1:] - 1
        timeouts[last] = ~terminals[last]  # an end without any mark is the end of the recording
        return Transitions.build(
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards,
            next_observations=self.next_observations,
            terminals=terminals,
            timeouts=timeouts,
            info=info,
            episode_offsets=self.offsets,
            clip_actions=clip_actions,
        )


def _read_hdf5(dataset_id: str, buffer: _Buffer) -> None:
    path = datasets_root() / dataset_id / "data" / DATA_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; download or create the dataset again")
    with hdf5_file(path) as file:
        for episode in range(buffer.episodes):
            _read_episode(_episode(file, episode), buffer)


def _episode(file: h5py.File, number: int) -> h5py.Group:
    group = find(file, f"episode_{number}")
    if not isinstance(group, h5py.Group):
        raise InputError(
            f"{file.filename}: no episode_{number}, which the metadata counts; create the dataset again"
        )
    return group


def _read_episode(group: h5py.Group, buffer: _Buffer) -> None:
    rewards = _open(group, "rewards")
    steps = _length(rewards)
    check_numbers("rewards", rewards, (steps,), (steps, 1))
    rows = buffer.start(steps)
    # The low-level read converts to float32 inside HDF5 and fills our rows directly: no copy in between.
    read_into(buffer.rewards[rows], rewards)
    for name in FLAG_FIELDS:
        flags = _open(group, name)
        buffer.check_rows(name, _length(flags), steps)
        check_numbers(name, flags, (steps,), (steps, 1))
        buffer.flags[name][rows] = marks(f"{name} in {group.name}", flags[()].reshape(steps))
    actions = _open(group, "actions")
    buffer.check_rows("actions", _length(actions), steps)
    check_numbers("actions", actions, (steps, *buffer.action_shape), (steps, buffer.actions.shape[1]))
    buffer.actions[rows] = actions[()].reshape(steps, -1)
    states = _decode(group, "observations", buffer.observation_space, steps + 1)
    buffer.put_observations(rows, flatten_batch(states, buffer.observation_space, steps + 1))


def _open(group: h5py.Group, name: str) -> h5py.Dataset:
    found = find(group, name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{group.file.filename}: no {name} in {group.name}; create the dataset again")
    return found


def _length(dataset: h5py.Dataset) -> int:
    """Rows of a field; a single number has none."""
    return int(dataset.shape[0]) if dataset.shape else 0


def _decode(group: h5py.Group, name: str, space: spaces.Space[Any], rows: int) -> Any:
    """The nested arrays of a space, as Minari lays them out: groups for Dict and Tuple."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        child = find(group, name)
        if not isinstance(child, h5py.Group):
            raise InputError(
                f"{group.file.filename}: {name} in {group.name} is no group, but its space is {space}"
            )
        if isinstance(space, spaces.Dict):
            return {key: _decode(child, key, part, rows) for key, part in space.spaces.items()}
        return tuple(_decode(child, f"_index_{index}", part, rows) for index, part in enumerate(space.spaces))
    dataset = _open(group, name)
    if _length(dataset) != rows:
        raise InputError(f"observations: {_length(dataset)} rows in {dataset.name}, must be {rows}")
    check_numbers(name, dataset, batch_shape(space, rows))
    return dataset[()]


def _read_arrow(dataset_id: str, buffer: _Buffer) -> None:
    for episode in _iterate_arrow(dataset_id):
        steps = len(episode.rewards)
        rows = buffer.start(steps)
        where = f"in episode {buffer.filled - 1}"
        for name in ("actions", *FLAG_FIELDS):
            buffer.check_rows(name, len(getattr(episode, name)), steps)
        buffer.rewards[rows] = as_numbers(f"rewards {where}", episode.rewards, (steps,), (steps, 1))
        shapes = ((steps, *buffer.action_shape), (steps, buffer.actions.shape[1]))
        buffer.actions[rows] = as_numbers(f"actions {where}", episode.actions, *shapes).reshape(steps, -1)
        for name in FLAG_FIELDS:
            flags = as_numbers(f"{name} {where}", getattr(episode, name), (steps,), (steps, 1))
            buffer.flags[name][rows] = marks(f"{name} {where}", flags)
        buffer.put_observations(
            rows, flatten_batch(episode.observations, buffer.observation_space, steps + 1)
        )


def _iterate_arrow(dataset_id: str) -> Iterator[Any]:
    import minari

    try:
        yield from minari.load_dataset(dataset_id).iterate_episodes()
    except ImportError as error:
        raise InputError(
            f"{dataset_id} is stored as arrow; install it with pip install 'minari[arrow]'"
        ) from error
    except Exception as error:  # each format of Minari has its own exceptions
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{dataset_id}: its arrow files cannot be read ({reason})") from error


def summarize_episodes(dataset_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Id of the environment, sizes and, where it is cheap, the mean return.

    Only the rewards of at most a few hundred episodes, spread evenly, are read; from arrow files none.
    """
    environment = None if metadata.get("env_spec") else "unknown"
    info = dataset_info(dataset_id, metadata, dataset_spaces(dataset_id, metadata)[1], environment)
    steps, episodes = sizes(metadata)
    cheap = metadata.get("data_format", "hdf5") == "hdf5"
    returns = _sample_returns(dataset_id, episodes) if cheap else np.empty(0)
    mean = float(returns.mean()) if cheap else None
    if mean is not None and not np.isfinite(mean):
        raise InputError(f"rewards: the mean return is {mean}, must be a finite number")
    return {
        "env_id": info.env_id,
        "episodes": episodes,
        "steps": steps,
        "mean_return": mean,
        "returns_read": len(returns),
        "normalized": None if mean is None else info.normalized(mean),
        "megabytes": megabytes(metadata),
    }


def _sample_returns(dataset_id: str, episodes: int) -> NDArray[np.float64]:
    path = datasets_root() / dataset_id / "data" / DATA_FILE
    chosen = np.unique(np.linspace(0, episodes - 1, min(episodes, SUMMARY_EPISODES)).astype(int))
    with hdf5_file(path) as file:
        return np.array([_return(_episode(file, number)) for number in chosen])


def _return(episode: h5py.Group) -> float:
    rewards = _open(episode, "rewards")
    check_numbers("rewards", rewards, (_length(rewards),), (_length(rewards), 1))
    check_memory(rewards.name, rewards.size, rewards.dtype.itemsize)
    with np.errstate(over="ignore"):  # what becomes inf is refused as such
        return float(np.sum(rewards[()]))
