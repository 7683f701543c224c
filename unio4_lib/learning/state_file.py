"""Nested training state as bytes: structure as JSON, tensors as safetensors, nothing pickled.

The payload is eight bytes of length, a JSON document, then a whole safetensors file. In the document every
container and every tensor is an object with one key that says what it is, so that integer keys, tuples and
numbers that JSON does not have come back as they were.
"""

import json
import math
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from unio4_lib.errors import InputError

FORMAT = "unio4.state"
FORMAT_VERSION = 1
LENGTH_BYTES = 8


def encode_state(state: Any) -> bytes:
    """Bytes of a nested state: dicts, lists, tuples, tensors, arrays and JSON values."""
    tensors: dict[str, Tensor] = {}
    document = {"format": FORMAT, "version": FORMAT_VERSION, "state": _encode(state, "state", tensors)}
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + dump_tensors(tensors)


def decode_state(payload: bytes, place: str) -> Any:
    """The state of such bytes, its tensors on the CPU."""
    end = LENGTH_BYTES + int.from_bytes(payload[:LENGTH_BYTES], "little")
    try:
        document = json.loads(payload[LENGTH_BYTES:end])
        if document.get("format") != FORMAT or document.get("version") != FORMAT_VERSION:
            found = f"{document.get('format')} {document.get('version')}"
            raise InputError(
                f"{place}: {found}, this release reads {FORMAT} {FORMAT_VERSION}; remove it to start anew"
            )
        return _decode(document["state"], load_tensors(payload[end:]))
    except (AttributeError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        raise InputError(f"{place}: not a saved state ({error}); remove the file to start anew") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: not a saved state ({error}); remove the file to start anew") from error


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _encode_array(value, where, tensors)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, dict):
        pairs = []
        for key, item in value.items():
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise TypeError(f"{where}: key {key!r} is neither a text nor a whole number")
            pairs.append([key, _encode(item, f"{where}.{key}", tensors)])
        return {"dict": pairs}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
        return {type(value).__name__: items}
    raise TypeError(f"{where}: cannot save a {type(value).__name__}; expected tensors, arrays or JSON values")


def _encode_array(
    value: "Tensor | np.ndarray[Any, Any] | np.generic", where: str, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    name = str(len(tensors))
    if isinstance(value, Tensor):
        # A copy: two names may share memory, and training goes on while bytes are written.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    array = np.array(value, order="C")
    try:
        tensors[name] = torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(f"{where}: arrays of {array.dtype} cannot be saved") from error
    return {"array" if isinstance(value, np.ndarray) else "number": name}


def _decode(entry: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((kind, content),) = entry.items()
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    if kind == "list":
        return [_decode(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "number":
        return tensors[content].numpy()[()]
    if kind == "float":
        return float(content)
    raise KeyError(kind)
