"""Numbers out of HDF5 files that may come from anywhere.

HDF5's low-level read converts while it reads and needs no copy, but fills whatever memory it is pointed at:
here sizes are compared first. A file can also point out of itself, by links, external storage and virtual
datasets; what lies elsewhere is not the file's to give, and is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unio4_lib.data.numbers import NUMBER_KINDS
from unio4_lib.errors import InputError

# What h5py makes of a file whose insides do not fit together, depending on where it is noticed.
UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError)
COPY = "copy the data itself into the file"


@contextmanager
def hdf5_file(path: Path) -> Iterator[h5py.File]:
    """A file to read; whatever HDF5 cannot read in it is one line."""
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable HDF5 file ({' '.join(str(error).split())})") from error


def find(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What a group holds under a name, or under a path of names; None where there is nothing."""
    found: Any = group
    for part in filter(None, name.split("/")):
        if not isinstance(found, h5py.Group) or not found.id.links.exists(part.encode()):
            return None
        if found.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise InputError(f"{_place(found, part)} is a link; {COPY}")
        found = found[part]
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        raise InputError(f"{_place(group, name)} lies in other files; {COPY}")
    return found if isinstance(found, h5py.Group | h5py.Dataset) else None


def check_numbers(name: str, dataset: h5py.Dataset, *shapes: tuple[int, ...]) -> None:
    """Real numbers in one of the shapes."""
    where = f"in {dataset.parent.name}"
    if dataset.dtype.kind not in NUMBER_KINDS:
        raise InputError(f"{name}: {dataset.dtype} {where}, must be numbers")
    if dataset.shape not in shapes:
        found = "no shape" if dataset.shape is None else f"shape {list(dataset.shape)}"
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"{name}: {found} {where}, must be {wanted}")


def read_into(target: NDArray[np.float32], dataset: h5py.Dataset) -> None:
    """Fill a contiguous array of as many numbers; what it does not know how to convert NumPy does."""
    if dataset.size != target.size or not target.flags.c_contiguous:
        raise ValueError(f"{dataset.name} has {dataset.size} numbers, the place for them {target.size}")
    if dataset.dtype.kind == "b" or dataset.size == 0:
        target[...] = dataset[()].reshape(target.shape)
    else:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, target.reshape(dataset.shape))


def _place(group: h5py.Group, name: str) -> str:
    return f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
