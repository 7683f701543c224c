"""What a run would ask for, said before anything starts: from its settings, its data and this machine.

Memory and disk are lower bounds. The time is that of products and environment steps at the pace that this
machine has now; evaluations, reading and writing are not in it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.data.memory import machine_memory
from unio4_lib.errors import InputError
from unio4_lib.learning.checkpoint import GENERATIONS
from unio4_lib.learning.threads import torch_threads
from unio4_lib.methods.configs import method_of
from unio4_lib.nets.ensemble import EnsembleMLP
from unio4_lib.settings.model import RunConfig
from unio4_lib.sim import make_sim
from unio4_lib.sources.preview import Preview, preview
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.fingerprint import fingerprint, read_entry
from unio4_lib.stages.sizes import FLOAT, TRAINED, needs, trained
from unio4_lib.stages.step import DATASET, Layers, Step

PROBE_SECONDS = 0.1  # for each shape of networks, and for the simulator
PYTORCH_BYTES = 250 * 10**6  # of a process that has done nothing with it yet
ENV_STEPS = "env steps"  # the word that steps have for them


@dataclass(frozen=True)
class StageEstimate:
    """What one stage asks for; ``seconds`` is None where nothing of it is known."""

    stage: str
    reused: bool
    memory_bytes: int
    disk_bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What a run asks for, and what there is."""

    stages: list[StageEstimate]
    machine_memory_bytes: int
    free_disk_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(config: RunConfig, artifact_root: str, output: Path, free: Callable[[Path], int]) -> Estimate:
    """Look at settings, data and artifacts, and time a few products and steps; nothing is written."""
    data = preview(config.dataset)
    steps = method_of(config).steps
    reused = _reused(config, steps, artifact_root)
    step_seconds = _seconds_of_a_step(data)
    with torch_threads(1):
        stages = [_stage(step, config, data, step.kind in reused, step_seconds) for step in steps]
    return Estimate(stages, machine_memory(), free(output))


def _stage(
    step: Step, config: RunConfig, data: Preview, reused: bool, step_seconds: float | None
) -> StageEstimate:
    if reused:
        return StageEstimate(step.name, True, 0, 0, 0.0)
    layers = step.layers(config)
    learned = sum(map(trained, layers))
    held = max([learned, *(size for _, size in needs(step, config))])
    disk = data.bytes if step.kind == DATASET else learned * FLOAT // TRAINED + GENERATIONS * learned
    env_steps = _env_steps(step, config, data)
    device = choose_device(config)
    timed = [*layers, *step.timed(config)]
    known = [layer.updates * _seconds_of_an_update(layer, device) for layer in timed]
    if env_steps and step_seconds is not None:
        known.append(env_steps * step_seconds)
    seconds = sum(known) if known and env_steps is not None else None
    return StageEstimate(step.name, False, PYTORCH_BYTES + data.bytes + held, disk, seconds)


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


def _seconds_of_an_update(layers: Layers, device: torch.device) -> float:
    """Through networks of this shape, and back where they learn from it, timed here."""
    width = layers.hidden[0]
    net = EnsembleMLP(layers.members, width, 1, layers.hidden).to(device).requires_grad_(layers.learns)
    rows = torch.zeros(layers.rows, width, device=device)

    def update() -> None:
        total = net(rows).sum()
        if layers.learns:
            total.backward()
        total.item()  # waits for an accelerator

    return _timed(update)


def _seconds_of_a_step(data: Preview) -> float | None:
    """A step of the environment, timed here; None where it is not known or not installed."""
    if data.env_id is None:
        return None
    try:
        sim = make_sim(data.env_id, 1, env_kwargs=data.env_kwargs)
    except InputError:
        return None
    try:
        sim.reset(0)
        middle = np.asarray((sim.action_low + sim.action_high) / 2, np.float64)[None]
        return _timed(lambda: sim.step(middle))
    finally:
        sim.close()


def _timed(action: Callable[[], object]) -> float:
    """The shortest of some repetitions, of at least two: the first one warms up."""
    shortest, began = float("inf"), time.perf_counter()
    action()
    while shortest == float("inf") or time.perf_counter() - began < PROBE_SECONDS:
        start = time.perf_counter()
        action()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def _reused(config: RunConfig, steps: tuple[Step, ...], artifact_root: str) -> set[str]:
    """Kinds that the root has already, if the data is what it was."""
    refs: dict[str, ArtifactRef] = {}
    with StageContext(artifact_root) as context:
        for step in steps:
            if any(kind not in refs for kind in step.inputs if kind not in step.optional):
                continue
            inputs = {kind: refs[kind] for kind in step.inputs if kind in refs}
            entry = read_entry(context.store, fingerprint(step, config, inputs))
            if entry is not None and context.store.exists(entry.ref.digest):
                refs[step.kind] = entry.ref
    return set(refs)
