"""Safetensors files without torch: written in one stream, read as views of a memory map.

The layout is eight bytes of header length, a JSON header, then the raw little-endian arrays. Writing and
reading it here, rather than through a library, keeps the writer free of copies in every supported version
and gives a reader that never holds more than the pages in use.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unio4_lib.errors import InputError

LENGTH_BYTES = 8
HEADER_BYTES_MAX = 100_000_000  # the limit of the format; a larger number means that this is another file
ALIGNMENT = 8

TYPE_NAMES = {"float32": "F32", "float64": "F64", "int64": "I64", "bool": "BOOL"}
DTYPES = {name: np.dtype(dtype) for dtype, name in TYPE_NAMES.items()}


def write_tensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write contiguous arrays and wait until the disk has them; an OSError passes through."""
    # Wide types first keep every array aligned to its own item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    position = 0
    for name in names:
        array = arrays[name]
        header[name] = {
            "dtype": TYPE_NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little"))
        file.write(text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a safetensors file as a read-only view of one memory map."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; a dataset folder has one")
    size = path.stat().st_size
    header, start = _read_header(path, size)
    data = np.memmap(path, dtype=np.uint8, mode="r") if size > start else np.empty(0, dtype=np.uint8)
    # A plain array over the map: np.memmap as a type makes each later slice and gather slower.
    data = data.view(np.ndarray)
    return {
        name: _view(path, name, entry, data, start)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, HEADER_BYTES_MAX):
            raise InputError(f"{path}: not a whole safetensors file ({size} bytes); save or copy it again")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its header is not JSON; save or copy the file again") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: its header is not a JSON object; save or copy the file again")
    return header, LENGTH_BYTES + length


def _view(path: Path, name: str, entry: Any, data: NDArray[np.uint8], start: int) -> NDArray[Any]:
    try:
        dtype = DTYPES[entry["dtype"]]
        shape = tuple(int(extent) for extent in entry["shape"])
        first, last = (start + int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: the header entry of {name} cannot be read; save the file again") from error
    if last > data.size:
        raise InputError(
            f"{path}: ends after {data.size} bytes inside {name}, which needs {last}; save or copy it again"
        )
    # Python integers: a shape made to overflow 64 bits must not pass for a small one.
    count = 1
    for extent in shape:
        count *= extent
    if min(shape, default=0) < 0 or not start <= first <= last or last - first != count * dtype.itemsize:
        raise InputError(f"{path}: shape and bytes of {name} disagree; save the file again")
    block = data[first:last]
    if first % dtype.itemsize:
        block = block.copy()  # other writers need not align
    if dtype == np.bool_ and block.size and block.max() > 1:
        raise InputError(f"{path}: {name} has a byte {block.max()}, must be 0 or 1; save the file again")
    view = block.view(dtype).reshape(shape)
    view.flags.writeable = False
    return view
