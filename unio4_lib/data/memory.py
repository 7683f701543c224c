"""How much memory there is; what does not fit is refused before it is asked for."""

import os
from contextlib import suppress
from pathlib import Path

from unio4_lib.errors import InputError

UNSUSPICIOUS_BYTES = 1 << 28
HIGHEST_COMPRESSION = 1100  # deflate's is 1032

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int:
    """What this process may use at most."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not on Linux, or "max"
            found = min(found, int(path.read_text()))
    return found


def check_stored(name: str, count: int, item_bytes: int, path: Path) -> None:
    """A file is large enough for as many items, however well it is compressed."""
    needed, stored = count * item_bytes, path.stat().st_size
    if needed > UNSUSPICIOUS_BYTES and needed > HIGHEST_COMPRESSION * stored:
        raise InputError(f"{name}: {needed / 1e9:,.1f} GB cannot be in a file of {stored:,} bytes")


def check_memory(name: str, count: int, item_bytes: int) -> None:
    """As many items fit."""
    needed, memory = count * item_bytes, machine_memory()
    if needed > memory:
        raise InputError(
            f"{name}: {needed / 1e9:,.1f} GB, but this machine has {memory / 1e9:,.1f} GB of memory; "
            "take fewer rows"
        )
