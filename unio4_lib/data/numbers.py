"""Values of unknown origin as arrays of numbers; what is no number, no mark or too much is refused."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unio4_lib.errors import InputError

NUMBER_KINDS = "fiub"  # of NumPy's dtypes: real numbers and truth values


def as_numbers(name: str, values: Any, *shapes: tuple[int, ...]) -> NDArray[Any]:
    """Real numbers in one of the shapes, in the first of them."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise InputError(f"{name}: no array ({' '.join(str(error).split())})") from error
    if array.dtype.kind not in NUMBER_KINDS:
        raise InputError(f"{name}: {array.dtype}, must be numbers")
    if array.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"{name}: shape {list(array.shape)}, must be {wanted}")
    return array.reshape(shapes[0])


def histogram(values: ArrayLike, bins: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts and edges, also of numbers so large and so alike that no edges fit between them."""
    array = np.asarray(values, np.float64)
    low, high = float(array.min()), float(array.max())
    apart = 2 * bins * float(np.spacing(max(abs(low), abs(high))))
    if high - low < apart:
        room = max(0.5, apart)
        low, high = low - room, high + room
    return np.histogram(array, bins, (low, high))


def marks(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    """A vector of 0 and 1, or false and true, as the latter; anything else is no mark."""
    if values.dtype == np.bool_:
        return values
    wrong = ~((values == 0) | (values == 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{name}: row {row} is {values[row]:g}, must be 0 or 1")
    return values == 1
