"""Settings that no memory can hold are refused before anything is allocated; estimates are lower bounds."""

from collections.abc import Iterable
from itertools import pairwise

from unio4_lib.data.memory import machine_memory
from unio4_lib.errors import InputError
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.step import Estimates, Layers, Step

FLOAT = 4  # bytes
TRAINED = 4 * FLOAT  # of a weight: itself, its gradient and two moments of Adam
ENVIRONMENT = 4096  # of one, at the very least
UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def check_sizes(config: RunConfig, steps: Iterable[Step], available: int | None = None) -> None:
    """Refuse what cannot fit into the memory of this machine."""
    available = machine_memory() if available is None else available
    for step in steps:
        for settings, size in needs(step, config):
            if size > available:
                raise InputError(
                    f"{step.name}: {settings} ask for at least {shown(size)} of memory, there are "
                    f"{shown(available)} here; expected smaller values"
                )


def needs(step: Step, config: RunConfig) -> Estimates:
    """What the networks that it trains take, with a minibatch each, and all else that it names."""
    found: Estimates = []
    for layers in step.layers(config):
        said = activations(layers.members * layers.rows, layers.hidden)
        found += [(layers.settings, trained(layers)), (f"{layers.settings}, with batch_size,", said)]
    return found + step.memory(config)


def trained(layers: Layers) -> int:
    """Bytes of networks, with what their training keeps of them."""
    return layers.members * TRAINED * sum(a * b for a, b in pairwise((1, *layers.hidden, 1)))


def activations(rows: int, hidden: tuple[int, ...]) -> int:
    """Bytes of what hidden layers say of so many rows."""
    return FLOAT * rows * sum(hidden)


def shown(size: float) -> str:
    """Bytes in words."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            return f"{size:,.3g} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes everything")
