"""Flatten a whole episode of observations at once, in the order of ``gymnasium.spaces.flatten``.

That order is the order in which a Dict space happens to list its keys, and Minari does not keep it. So keys
are sorted here first, for datasets and simulators alike.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from unio4_lib.data.numbers import as_numbers
from unio4_lib.errors import InputError


def sorted_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The same space with the keys of every Dict in it sorted."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: sorted_space(part) for key, part in space.spaces.items()})  # it sorts a dict
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([sorted_space(part) for part in space.spaces])
    return space


def flat_dim(field: str, space: spaces.Space[Any]) -> int:
    """Numbers per observation; spaces that have no sensible flat form are refused."""
    if isinstance(space, spaces.Dict):
        return sum(flat_dim(f"{field}.{key}", part) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return sum(flat_dim(f"{field}.{index}", part) for index, part in enumerate(space.spaces))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3:
        raise InputError(f"{field}: {list(space.shape)} images; only vector observations are supported")
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return int(np.prod(space.shape))
    raise InputError(
        f"{field}: {type(space).__name__}; Box, Discrete, MultiBinary, Dict and Tuple are supported"
    )


def batch_shape(space: spaces.Space[Any], rows: int) -> tuple[int, ...]:
    """Shape of ``rows`` observations of a space that is no Dict or Tuple."""
    return (rows, *(space.shape or ()))


def flatten_batch(values: Any, space: spaces.Space[Any], rows: int) -> NDArray[Any]:
    """Nested arrays of [rows, ...] as one [rows, D]."""
    if isinstance(space, spaces.Dict):
        parts = [flatten_batch(values[key], part, rows) for key, part in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, spaces.Tuple):
        parts = [flatten_batch(values[index], part, rows) for index, part in enumerate(space.spaces)]
        return np.concatenate(parts, axis=1)
    if rows != len(values):
        raise InputError(
            f"observations: {len(values)} rows in an episode of {rows - 1} steps, must be {rows}"
        )
    array = as_numbers("observations", values, batch_shape(space, rows))
    if isinstance(space, spaces.Discrete):
        return _one_hot(array, space)
    return array.reshape(rows, -1)


def _one_hot(array: NDArray[Any], space: spaces.Discrete) -> NDArray[np.float32]:
    hot = array[:, None] == np.arange(space.start, space.start + space.n)
    outside = ~hot.any(axis=1)
    if outside.any():
        raise InputError(f"observations: {array[outside.argmax()]:g} is not in {space}")
    return hot.astype(np.float32)
