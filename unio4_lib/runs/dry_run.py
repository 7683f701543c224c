"""What a run would ask for, said before anything starts; nothing is written."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.data.memory import machine_memory
from unio4_lib.data.preview import Preview
from unio4_lib.errors import InputError
from unio4_lib.files import free_bytes
from unio4_lib.methods.configs import method_of
from unio4_lib.progress import Reporter
from unio4_lib.settings.model import RunConfig
from unio4_lib.sources.preview import preview
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.estimate import StageEstimate, estimate_stage, in_words
from unio4_lib.stages.fingerprint import IndexEntry, fingerprint, read_entry
from unio4_lib.stages.step import Step

ALL_ELSE = "with evaluations and all else several times that"


@dataclass(frozen=True)
class Estimate:
    """What a run asks for, and what there is."""

    stages: list[StageEstimate]
    machine_memory_bytes: int
    free_disk_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def computed(self) -> list[StageEstimate]:
        """Of the stages, those that have to be."""
        return [stage for stage in self.stages if not stage.reused]

    @property
    def seconds(self) -> float:
        """One stage after another, as far as anything is known."""
        return sum(stage.seconds or 0.0 for stage in self.computed)

    @property
    def disk_bytes(self) -> int:
        return sum(stage.disk_bytes for stage in self.computed)

    def in_a_line(self) -> str:
        """What an ordinary run says before it starts."""
        if not self.computed:
            return "has nothing to compute: all of it is there"
        memory = max(stage.memory_bytes for stage in self.computed)
        known = any(stage.seconds is not None for stage in self.computed)
        asked = in_words(memory, self.disk_bytes, self.seconds if known else None)
        return f"asks for at least {asked}" + (f" ({ALL_ELSE})" if known else "")


def estimate(config: RunConfig, artifact_root: str, output: Path, *, reuse: bool = True) -> Estimate:
    """Look at settings, data and artifacts, and time a few products and steps.

    What is wrong with data or artifacts is said by whoever needs them.
    """
    try:
        data = preview(config.dataset)
    except InputError:
        data = Preview()
    steps = method_of(config).steps
    reused = _reused(config, steps, artifact_root) if reuse else set()
    stages = [
        StageEstimate(step.name, True, 0, 0, 0.0)
        if step.kind in reused
        else estimate_stage(step, config, data)
        for step in steps
    ]
    return Estimate(stages, machine_memory(), free_bytes(output))


def announce(config: RunConfig, artifact_root: str, output: Path, reporter: Reporter, *, reuse: bool) -> None:
    """Say in a line what a run asks for, where anybody listens."""
    if reporter.console is not None:
        reporter.say(f"the run {estimate(config, artifact_root, output, reuse=reuse).in_a_line()}")


def _reused(config: RunConfig, steps: tuple[Step, ...], artifact_root: str) -> set[str]:
    """Kinds that the root has already, if the data is what it was."""
    refs: dict[str, ArtifactRef] = {}
    with StageContext(artifact_root) as context:
        for step in steps:
            if any(kind not in refs for kind in step.inputs if kind not in step.optional):
                continue
            inputs = {kind: refs[kind] for kind in step.inputs if kind in refs}
            entry = _entry(context, fingerprint(step, config, inputs))
            if entry is not None and context.store.exists(entry.ref.digest):
                refs[step.kind] = entry.ref
    return set(refs)


def _entry(context: StageContext, key: str) -> IndexEntry | None:
    try:
        return read_entry(context.store, key)
    except StoreError:
        raise
    except InputError:
        return None
