"""What a stage would ask for, before it starts: from its settings, its data and this machine.

Memory and disk are lower bounds. The time is that of products of the networks and of single environment steps
at the pace that this machine has now; evaluations, reading and writing are not in it. Where there is no
accelerator, PyTorch is not needed for any of it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.data.preview import Preview
from unio4_lib.errors import InputError
from unio4_lib.learning.checkpoint import GENERATIONS
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.sizes import FLOAT, TRAINED, needs, shown, trained
from unio4_lib.stages.step import DATASET, Layers, Step

PROBE_SECONDS = 0.1  # at most, for each shape of networks and for the simulator
PROBE_SHARE = 0.01  # of the work itself, at most
FEW_STEPS = 1000  # a second or two in most environments: not worth a look
PYTORCH_BYTES = 250 * 10**6  # of a process that has done nothing with it yet
BLOCKS, BLOCK = 256, 64
ENV_STEPS = "env steps"  # the word that steps have for them
ACCELERATORS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
MINUTE = 60.0


@dataclass(frozen=True)
class StageEstimate:
    """What one stage asks for; ``seconds`` is None where nothing of it is known."""

    stage: str
    reused: bool
    memory_bytes: int
    disk_bytes: int
    seconds: float | None


def estimate_stage(step: Step, config: RunConfig, data: Preview) -> StageEstimate:
    """Look at the settings, and time a few products and steps of the environment."""
    layers = step.layers(config)
    learned = sum(map(trained, layers))
    held = max([learned, *(size for _, size in needs(step, config))])
    disk = data.bytes if step.kind == DATASET else learned * FLOAT // TRAINED + GENERATIONS * learned
    known: list[float | None] = [_seconds_of_updates(one, config) for one in [*layers, *step.timed(config)]]
    env_steps = _env_steps(step, config, data)
    if env_steps is None:
        known = []  # it trains first, for nobody knows how long
    elif env_steps:
        known.append(_seconds_of_steps(env_steps, data) if env_steps > FEW_STEPS else 0.0)
    seconds = [each for each in known if each is not None]
    return StageEstimate(
        step.name, False, PYTORCH_BYTES + data.bytes + held, disk, sum(seconds) if seconds else None
    )


def asked_by(step: Step, config: RunConfig, refs: Mapping[str, ArtifactRef], context: StageContext) -> str:
    """What a stage that is about to begin says of itself."""
    found = estimate_stage(step, config, _known(step, config, refs, context))
    asked = in_words(found.memory_bytes, found.disk_bytes, found.seconds)
    return f"{step.name}: asks for at least {asked}"


def _known(step: Step, config: RunConfig, refs: Mapping[str, ArtifactRef], context: StageContext) -> Preview:
    """Of the rows; what is wrong with them is said by whoever reads them."""
    try:
        if DATASET in refs:
            return Preview.of_rows(context.hold(refs[DATASET]))
        if not step.inputs:
            from unio4_lib.sources.preview import preview  # with h5py, which not every image has

            return preview(config.dataset)
    except StoreError:
        raise
    except InputError:
        return Preview()
    return Preview()


def in_words(memory: int, disk: int, seconds: float | None) -> str:
    """As a part of a sentence."""
    asked = [f"{shown(memory)} of memory", f"{shown(disk)} of disk"]
    if seconds is not None:
        asked.append(duration(seconds))
    return f"{', '.join(asked[:-1])} and {asked[-1]}"


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < MINUTE * MINUTE:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / MINUTE / MINUTE:.1f} h"


def _env_steps(step: Step, config: RunConfig, data: Preview) -> int | None:
    """Steps of the environment that are set, not those of evaluations; None where they are not known."""
    if step.kind == DATASET:
        return data.env_steps
    name, word = step.amount
    if word != ENV_STEPS:
        return 0
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return int(value)


def _seconds_of_updates(layer: Layers, config: RunConfig) -> float:
    """As many as asked, through networks of this shape, and back where they learn from it."""
    if config.device != "cpu" and any(place.exists() for place in ACCELERATORS):
        return layer.updates * _timed(_update_of_torch(layer, config), layer.updates, time.perf_counter)
    passes = 3 if layer.learns else 1  # backward there are two products for each one forward
    inner = sum(a * b for a, b in pairwise(layer.hidden)) + layer.hidden[-1]
    work = layer.updates * layer.members * layer.rows * inner * passes
    return work / products_in_a_second()


@cache
def products_in_a_second() -> float:
    """Of two numbers each, by one core: blocks are as small as they must be for one thread to take them."""
    blocks = np.ones((BLOCKS, BLOCK, BLOCK), np.float32)
    out = np.empty_like(blocks)
    return BLOCKS * BLOCK**3 / _timed(lambda: np.matmul(blocks, blocks, out=out), 10**9)


def _update_of_torch(layer: Layers, config: RunConfig) -> Callable[[], None]:
    import torch

    from unio4_lib.nets.ensemble import EnsembleMLP
    from unio4_lib.stages.device import choose_device

    device, width = choose_device(config), layer.hidden[0]
    with torch.random.fork_rng():  # nobody's draws depend on an estimate
        net = EnsembleMLP(layer.members, width, 1, layer.hidden).to(device).requires_grad_(layer.learns)
    rows = torch.zeros(layer.rows, width, device=device)

    def update() -> None:
        total = net(rows).sum()
        if layer.learns:
            total.backward()
        total.item()  # waits for the accelerator

    return update


def _seconds_of_steps(count: int, data: Preview) -> float | None:
    """Of the environment, one after another; None where it is not known or not installed."""
    if data.env_id is None:
        return None
    from unio4_lib.sim import make_sim

    try:
        sim = make_sim(data.env_id, 1, env_kwargs=data.env_kwargs)
    except InputError:
        return None
    try:
        sim.reset(0)
        middle = np.asarray((sim.action_low + sim.action_high) / 2, np.float64)[None]
        return count * _timed(lambda: sim.step(middle), count)
    finally:
        sim.close()


def _timed(action: Callable[[], object], asked: int, clock: Callable[[], float] = time.thread_time) -> float:
    """The shortest of some repetitions, of at least two: the first one warms up.

    Of the processor, where nothing else is said: others who are busy now need not be so later.
    """
    shortest, began, repetitions = float("inf"), time.perf_counter(), 0
    most = max(2, int(PROBE_SHARE * asked))
    while repetitions < 2 or (repetitions < most and time.perf_counter() - began < PROBE_SECONDS):
        start = clock()
        action()
        shortest = min(shortest, clock() - start)
        repetitions += 1
    return shortest
