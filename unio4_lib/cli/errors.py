"""What the command says of a failure: one line, and an exit code that means something."""

import os
from pathlib import Path
from typing import Any

from typer.exceptions import TyperException

from unio4_lib.artifacts.s3 import StoreUnavailable
from unio4_lib.errors import NO_SPACE, InputError, Preempted, without_user_info

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_TRY_AGAIN = 75
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "UNIO4_DEBUG"


def explain(error: Exception) -> tuple[str, int]:
    """One line and the exit code for anything that may be raised."""
    if isinstance(error, Preempted | StoreUnavailable):
        return _flat(error), EXIT_TRY_AGAIN
    if isinstance(error, InputError):
        return _flat(error), EXIT_BAD_INPUT
    if isinstance(error, TyperException):
        return _usage(error), EXIT_BAD_INPUT
    if _is_disk_full(error):
        place = getattr(error, "filename", None)
        where = f" for {place}" if place else ""
        return f"no space left on the disk{where}; free some or choose {_other_place(place)}", EXIT_BAD_INPUT
    return f"{type(error).__name__}: {_flat(error) or 'no message'}", EXIT_FAILED


def _other_place(place: Any) -> str:
    """What to change where a disk is full: the cache may be on another one than the runs."""
    from unio4_lib.stages.context import default_cache

    another_cache = "another --cache (UNIO4_CACHE)"
    if not place:
        return f"another --output or {another_cache}"
    inside = Path(str(place)).absolute().is_relative_to(default_cache().absolute())
    return another_cache if inside else "another --output"


def _usage(error: TyperException) -> str:
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "unio4"
    message = without_user_info(" ".join(error.format_message().split())).rstrip(".")
    return f"{message}; see {path} --help"


def _is_disk_full(error: Exception) -> bool:
    # Writers in native code (HDF5, safetensors) say it in their own classes, without a number.
    said = str(error).lower()
    return getattr(error, "errno", None) in NO_SPACE or any(os.strerror(n).lower() in said for n in NO_SPACE)


def _flat(error: Exception) -> str:
    return without_user_info(" ".join(str(error).split()))
