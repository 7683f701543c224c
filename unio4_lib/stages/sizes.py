"""Settings that no memory can hold are refused before anything is allocated; estimates are lower bounds."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from unio4_lib.config import RunConfig
from unio4_lib.errors import InputError

FLOAT = 4  # bytes
TRAINED = 4 * FLOAT  # of a weight: itself, its gradient and two moments of Adam
ENVIRONMENT = 4096  # of one, at the very least
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")

Estimate = tuple[str, int]  # the settings that decide, and bytes


def check_sizes(config: RunConfig, stages: Iterable[str], available: int | None = None) -> None:
    """Refuse what cannot fit into the memory of this machine."""
    available = machine_memory() if available is None else available
    for stage in stages:
        for settings, size in NEEDS[stage](config) if stage in NEEDS else ():
            if size > available:
                raise InputError(
                    f"{stage}: {settings} ask for at least {_shown(size)} of memory, there are "
                    f"{_shown(available)} here; expected smaller values"
                )


def machine_memory() -> int:
    """What this process may use at most."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not on Linux, or "max"
            found = min(found, int(path.read_text()))
    return found


def _networks(count: int, *hidden: tuple[int, ...]) -> int:
    return count * TRAINED * sum(a * b for widths in hidden for a, b in pairwise((1, *widths, 1)))


def _activations(count: int, rows: int, *hidden: tuple[int, ...]) -> int:
    return count * rows * FLOAT * sum(sum(widths) for widths in hidden)


def _cloning(config: RunConfig) -> list[Estimate]:
    said = config.behavior
    return [
        ("behavior.members and hidden", _networks(said.members, said.hidden)),
        ("behavior.members, batch_size and hidden", _activations(said.members, said.batch_size, said.hidden)),
    ]


def _critics(config: RunConfig) -> list[Estimate]:
    said = config.critics
    return [
        ("critics.q_hidden and v_hidden", _networks(1, said.q_hidden, said.v_hidden)),
        ("critics.batch_size, q_hidden and v_hidden",
         _activations(1, said.batch_size, said.q_hidden, said.v_hidden)),
    ]  # fmt: skip


def _dynamics(config: RunConfig) -> list[Estimate]:
    said = config.dynamics
    return [
        ("dynamics.members and hidden", _networks(said.members, said.hidden)),
        ("dynamics.members, batch_size and hidden", _activations(said.members, said.batch_size, said.hidden)),
    ]


def _improvement(config: RunConfig) -> list[Estimate]:
    said, hidden = config.improve, config.behavior.hidden
    tracks = min(said.members, config.behavior.members + config.extract.members)
    rows = said.rollouts * said.rollout_steps if said.advantages == "model" else 0
    return [
        ("extract.members and behavior.hidden", _networks(config.extract.members, hidden)),
        ("improve.rollouts and rollout_steps", 3 * FLOAT * tracks * rows),
        ("improve.starts and behavior.hidden", _activations(tracks, said.starts, hidden)),
        ("improve.value_hidden", _networks(tracks, said.value_hidden)),
    ]


def _online(config: RunConfig) -> list[Estimate]:
    said = config.finetune
    return [
        ("finetune.num_envs", said.num_envs * ENVIRONMENT),
        ("finetune.num_envs and rollout_steps", 3 * FLOAT * said.num_envs * said.rollout_steps),
        ("finetune.value_hidden", _networks(1, said.value_hidden)),
    ]


NEEDS: dict[str, Callable[[RunConfig], list[Estimate]]] = {
    "clone-behavior": _cloning,
    "fit-critics": _critics,
    "fit-dynamics": _dynamics,
    "improve-policy": _improvement,
    "finetune-online": _online,
}


def _shown(size: float) -> str:
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:,.3g} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes everything")
