"""The figures of one benchmark: measured, written down, and compared with those of another day."""

import json
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from unio4_lib import __version__
from unio4_lib.bench.loops import Loop, Training, all_loops
from unio4_lib.bench.machine import Limits, limits_of, probes
from unio4_lib.bench.meter import Meter, Timing, Work, resident_bytes
from unio4_lib.bench.peers import Peer
from unio4_lib.bench.world import World
from unio4_lib.errors import InputError
from unio4_lib.learning.loop import Trainer
from unio4_lib.learning.memory import keep_freed_memory
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.registry import DEFAULT, METHODS
from unio4_lib.progress import Reporter

SCHEMA = 1
TOLERATED_LOSS = 0.25  # of speed, beside the yardstick
LOOKS_AGAIN = 2  # at what seems to be slower
YARDSTICK = ("products", "call")  # probes whose times together stand for the machine's speed
YARDSTICK_PRODUCTS, YARDSTICK_CALLS = 5e8, 300  # operations and calls: about those of an update


@dataclass(frozen=True)
class Figure:
    """One loop: what a unit of its work takes."""

    name: str
    unit: str
    timing: Timing
    ratio: float  # processor time of a unit over that of the yardstick
    products: float | None = None  # GFLOP of a unit
    share: float | None = None  # of the machine's rate of products
    memory: float | None = None  # MB that the loop added to the process


@dataclass(frozen=True)
class Bench:
    """All figures of one call."""

    machine: dict[str, str]
    sizes: dict[str, Any]
    limits: Limits
    figures: list[Figure]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n")


def choose(names: Collection[str]) -> list[Loop]:
    """Loops by their names; all of them where none is given."""
    found = all_loops()
    known = [loop.name for loop in found]
    for name in names:
        if name not in known:
            raise InputError(f"--only {name}: no such loop; expected one of {', '.join(known)}")
    return [loop for loop in found if not names or loop.name in names]


def run_bench(
    world: World,
    loops: Sequence[Loop],
    peers: Sequence[Peer],
    *,
    rounds: int,
    seconds: float,
    reporter: Reporter,
) -> Bench:
    """Measure everything in turn, so that what disturbs the machine disturbs all alike."""
    world.check({DEFAULT, *(loop.name for loop in loops if loop.name in METHODS)})
    keep_freed_memory()
    meter, work, memory, products = Meter(), dict[str, Work](), dict[str, float](), dict[str, float]()
    with torch_threads(1):
        for loop in loops:
            reporter.say(f"making: {loop.name}")
            before = resident_bytes()
            work[loop.name] = made = loop.make(world)
            made()  # the first time is like no other
            memory[loop.name] = (resident_bytes() - before) / 1e6
            if isinstance(made, Training):
                products[loop.name] = _products(made.trainer)
        machine = probes(world.device)
        for number in range(rounds):
            reporter.say(f"round {number + 1} of {rounds}")
            meter.round(machine, min(seconds, 0.2))
            meter.round(work, seconds)
            for peer in peers:
                for name, _ in peer.loops:
                    label = f"{peer.name}: {name}"
                    meter.samples.setdefault(label, []).append(peer.sample(name, seconds))
    limits, timings = limits_of(meter), meter.timings()
    unit_of = {loop.name: loop.unit for loop in loops}
    unit_of |= {f"{peer.name}: {name}": unit for peer in peers for name, unit in peer.loops}
    yardstick = _yardstick(timings)
    figures = [
        _figure(name, unit, timings[name], yardstick, products.get(name), memory.get(name), limits)
        for name, unit in unit_of.items()
    ]
    described = {"system": platform.platform(), "python": platform.python_version()}
    described |= {"torch": torch.__version__, "unio4": __version__, "device": _device_name(world.device)}
    sizes = {"environment": world.env_id, "rows": world.rows, "preset": world.preset}
    return Bench(described, sizes | {"set": list(world.overrides)}, limits, figures)


def _figure(
    name: str,
    unit: str,
    timing: Timing,
    yardstick: float,
    products: float | None,
    memory: float | None,
    limits: Limits,
) -> Figure:
    share = None if products is None else products / limits.products / timing.processor
    return Figure(name, unit, timing, timing.processor / yardstick, products, share, memory)


def _products(trainer: Trainer) -> float:
    """GFLOP in the products of matrices of one update."""
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    return counter.get_total_flops() / 1e9


def _yardstick(timings: Mapping[str, Timing]) -> float:
    """Seconds that this machine takes for a fixed piece of work of the kind that fills an update."""
    return timings["products"].processor * YARDSTICK_PRODUCTS + timings["call"].processor * YARDSTICK_CALLS


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def kept_ratios(path: Path) -> dict[str, float]:
    """The ratios of a saved benchmark, by the names of its loops."""
    try:
        saved = json.loads(path.read_text())
        if saved["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {saved['schema']}; this release reads {SCHEMA}: measure again")
        return {figure["name"]: float(figure["ratio"]) for figure in saved["figures"]}
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a file of unio4 bench --save"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a saved benchmark ({error}); expected one of unio4 bench") from error


def losses(bench: Bench, kept: Mapping[str, float], tolerated: float = TOLERATED_LOSS) -> dict[str, str]:
    """A line for each loop that lost more of its speed than is tolerated; others' code is not ours."""
    lines = {}
    for figure in bench.figures:
        before = kept.get(figure.name)
        if before is not None and ":" not in figure.name and figure.ratio > before / (1.0 - tolerated):
            lost = 1.0 - before / figure.ratio
            lines[figure.name] = (
                f"{figure.name} lost {lost:.0%} of its speed: {figure.ratio:.3g} yardsticks a "
                f"{figure.unit}, {before:.3g} before"
            )
    return lines


def lasting_losses(
    bench: Bench, kept: Mapping[str, float], measure: Callable[[list[Loop]], Bench]
) -> dict[str, str]:
    """Those that are there each time they are measured again: neighbours on a machine come and go."""
    lost = losses(bench, kept)
    for _ in range(LOOKS_AGAIN):
        if lost:
            lost = losses(measure(choose(lost)), kept)
    return lost
