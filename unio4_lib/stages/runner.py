"""One stage from its inputs to its artifact: reused, resumed or computed."""

import errno
import json
import resource
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from unio4_lib.artifacts.integrity import read_manifest
from unio4_lib.artifacts.manifest import Manifest, list_files
from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError, StoreRefused
from unio4_lib.errors import InputError, Preempted
from unio4_lib.learning.journal import Journal
from unio4_lib.report.facts import Facts, Log, LogLine
from unio4_lib.report.part import P, read_part
from unio4_lib.settings.model import RunConfig
from unio4_lib.sources.state import source_digest
from unio4_lib.stages import tracked
from unio4_lib.stages.context import CACHE_VARIABLE, StageContext
from unio4_lib.stages.fingerprint import (
    CHECKPOINTS,
    IndexEntry,
    digest_of,
    fingerprint,
    read_entry,
    stage_settings,
    write_entry,
)
from unio4_lib.stages.outcome import StageOutcome
from unio4_lib.stages.sizes import check_sizes
from unio4_lib.stages.step import FACTS_FILE, LOG_FILE, Step
from unio4_lib.stages.work_folder import shared
from unio4_lib.tracking.tracker import StageTracker

if TYPE_CHECKING:
    from unio4_lib.learning.checkpoint import Checkpointer
    from unio4_lib.learning.loop import LogEntry

SECONDS, PEAK_MEMORY = "seconds", "peak_memory_bytes"  # metrics of every manifest
FLUSH_SECONDS = 20.0  # for the last checkpoint's upload: less than what a cluster waits before it kills


Config = TypeVar("Config", bound=RunConfig, covariant=True)


@dataclass
class StageWork(Generic[Config]):
    """What a stage has in hand while it computes: its inputs, and the folder that becomes its artifact."""

    stage: Step
    config: Config
    refs: Mapping[str, ArtifactRef]
    folder: Path
    context: StageContext
    tracker: StageTracker
    journal: Journal
    metrics: dict[str, float] = field(default_factory=dict)

    def input(self, kind: str) -> Path:
        """The verified folder of an input."""
        return self.context.hold(self.refs[kind])

    def manifest(self, kind: str) -> Manifest:
        """What is known about an input."""
        return read_manifest(self.input(kind), self.refs[kind].digest)

    def read(self, kind: str, name: str) -> Any:
        """A JSON file of an input."""
        return json.loads((self.input(kind) / name).read_bytes())

    def facts(self, kind: str, part: type[P]) -> P:
        """What the stage of an input told of itself, or a part of that."""
        return read_part(part, self.read(kind, FACTS_FILE), f"{kind}/{FACTS_FILE}", "facts")

    def write(self, name: str, values: Any) -> None:
        """A JSON file of the artifact."""
        (self.folder / name).write_text(json.dumps(values, indent=1) + "\n")

    def finish(self, log: Sequence["LogEntry"], facts: Facts) -> None:
        """What every artifact holds: the training curves, and what is worth showing in the report."""
        lines = [LogLine(step=entry.step, values=entry.values) for entry in log]
        self.write(LOG_FILE, Log(entries=lines).to_json())
        self.write(FACTS_FILE, facts.to_json())


def run_stage(
    stage: Step, config: RunConfig, inputs: Mapping[str, ArtifactRef], context: StageContext
) -> StageOutcome:
    """The artifact of a stage: found if it was made before, else computed and published."""
    refs = _checked(stage, inputs)
    context.preemption.check()
    began = time.perf_counter()
    key = fingerprint(stage, config, refs)
    source = source_digest(config.dataset) if not stage.inputs else None
    with context.tracker.stage(stage.name, key) as tracker:
        if context.tracker.active:
            tracked.begin(tracker, stage, config, refs)
        outcome = _reused(stage, config, key, source, context, began) if context.reuse else None
        if outcome is None:
            outcome = _Computation(stage, config, refs, context, tracker, key, source).run(began)
        if context.tracker.active:
            tracked.finish(tracker, stage, config, refs, outcome, context)
        return outcome


def _checked(stage: Step, inputs: Mapping[str, ArtifactRef]) -> dict[str, ArtifactRef]:
    """Exactly the inputs of the stage, in its order."""
    for kind in inputs:
        if kind not in stage.inputs:
            wanted = ", ".join(stage.inputs) or "none"
            raise InputError(f"stage {stage.name}: input {kind} is not one of its inputs; expected {wanted}")
    given = tuple(kind for kind in stage.inputs if kind in inputs or kind not in stage.optional)
    for kind in given:
        if kind not in inputs:
            raise InputError(
                f"stage {stage.name}: no input {kind}; expected the reference to an artifact of kind {kind}"
            )
        if inputs[kind].kind != kind:
            raise InputError(f"stage {stage.name}: input {kind} is an artifact of kind {inputs[kind].kind}")
    return {kind: inputs[kind] for kind in given}


def _reused(
    stage: Step, config: RunConfig, key: str, source: str | None, context: StageContext, began: float
) -> StageOutcome | None:
    """What was made before, if it is still whole; what is not is said in one line and made again."""
    try:
        entry = read_entry(context.store, key)
        if entry is None:
            return None
        if source is not None and entry.source != source:
            context.reporter.say(f"{stage.name}: the dataset has changed since it was prepared: again")
            return None
        manifest = context.store.stands(entry.ref)
    except StoreError:
        raise
    except InputError as error:
        context.reporter.say(f"{stage.name}: cannot be reused, is computed again: {error}")
        return None
    try:
        write_entry(context.store, key, entry)  # young again: a collection keeps what is in use
    except StoreRefused as error:  # who may only read can reuse all the same
        context.reporter.say(f"{stage.name}: {error}")
    context.reporter.say(f"{stage.name}: reused {entry.ref.digest[:16]} of {manifest.created}")
    if (context.work / key).exists():  # of a process that was killed when the artifact was whole
        with suppress(OSError), shared(context.work / key):  # in a cache that may be written
            _discard(stage, _checkpointer(config, key, context), context)
    metrics = dict(manifest.metrics)
    metrics.pop(SECONDS, None)
    peak = int(metrics.pop(PEAK_MEMORY, 0))
    return StageOutcome(entry.ref, time.perf_counter() - began, True, False, peak, metrics)


def _checkpointer(config: RunConfig, key: str, context: StageContext) -> "Checkpointer":
    from unio4_lib.learning.checkpoint import Checkpointer

    return Checkpointer(config.checkpoint_seconds, context.work / key, context.store, f"{CHECKPOINTS}/{key}")


def _discard(stage: Step, checkpoints: "Checkpointer", context: StageContext) -> None:
    """The checkpoints have done their duty; what cannot be removed now is left to the collection."""
    try:
        checkpoints.discard()
    except InputError as error:
        context.reporter.say(f"{stage.name}: old checkpoints stay for now: {error}")


class _Computation:
    """One stage that has to be computed, from its last checkpoint if there is one."""

    def __init__(
        self,
        stage: Step,
        config: RunConfig,
        refs: dict[str, ArtifactRef],
        context: StageContext,
        tracker: StageTracker,
        key: str,
        source: str | None,
    ) -> None:
        self.stage, self.config, self.refs, self.context = stage, config, refs, context
        self.tracker, self.key, self.source = tracker, key, source

    def run(self, began: float) -> StageOutcome:
        check_sizes(self.config, [self.stage])
        self._announce()
        work_folder = self.context.work / self.key
        folder = work_folder / f"artifact-{uuid.uuid4().hex[:8]}"
        with ExitStack() as stack:
            try:
                stack.enter_context(shared(work_folder))
                folder.mkdir()
            except OSError as error:
                raise InputError(
                    f"{work_folder}: cannot be written ({error.strerror}); choose another --cache "
                    f"({CACHE_VARIABLE})"
                ) from error
            return self._compute(folder, began)

    def _announce(self) -> None:
        """Say what the stage asks for, where anybody listens."""
        if self.context.reporter.console is not None:
            from unio4_lib.stages.estimate import asked_by

            self.context.reporter.say(asked_by(self.stage, self.config, self.refs, self.context))

    def _compute(self, folder: Path, began: float) -> StageOutcome:
        checkpoints = _checkpointer(self.config, self.key, self.context)
        try:
            journal = self._journal(checkpoints)
            work = StageWork(self.stage, self.config, self.refs, folder, self.context, self.tracker, journal)
            attrgetter(self.stage.function)(import_module(self.stage.module))(work)
            outcome = self._publish(work, began)
            _discard(self.stage, checkpoints, self.context)
            return outcome
        except (InputError, Preempted):
            raise
        except Exception as error:
            if not self._lost(folder, error):
                raise
            raise InputError(
                f"{folder}: gone while {self.stage.name} was at work; start it again, and let nobody delete "
                "the cache meanwhile"
            ) from error
        finally:
            checkpoints.close(FLUSH_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)

    def _lost(self, folder: Path, error: Exception) -> bool:
        """Whether the cache was deleted: writers in native code have classes of their own for that."""
        if isinstance(error, FileNotFoundError):
            return Path(str(error.filename)).is_relative_to(self.context.work.parent)
        return not folder.is_dir()

    def _journal(self, checkpoints: "Checkpointer") -> Journal:
        """Where the training begins; a checkpoint that cannot be read is said in one line."""
        resumed = None
        try:
            resumed = checkpoints.load()
        except StoreError:
            raise
        except InputError as error:
            self.context.reporter.say(f"{self.stage.name}: begins anew, no checkpoint is whole: {error}")
        if resumed is not None:
            self.context.reporter.say(f"{self.stage.name}: resumed from its last checkpoint")
        return Journal(checkpoints, resumed, self._track, self.context.preemption, self.context.reporter.say)

    def _track(self, step: int, values: dict[str, float]) -> None:
        self.tracker.log_metrics(tracked.named(self.stage.name, values), step)

    def _publish(self, work: StageWork[Any], began: float) -> StageOutcome:
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        manifest = Manifest.of_folder(
            work.folder,
            kind=self.stage.kind,
            stage=self.stage.name,
            config_digest=digest_of(stage_settings(self.stage, self.config)),
            inputs={kind: ref.digest for kind, ref in self.refs.items()},
            metrics={**work.metrics, SECONDS: round(seconds, 2), PEAK_MEMORY: peak},
        )
        ref = self.context.store.publish(work.folder, manifest)
        # Files that went before the manifest was made are missed by nobody else.
        if not work.folder.is_dir() or list_files(work.folder) != sorted(manifest.files):
            raise FileNotFoundError(errno.ENOENT, "files were deleted", str(work.folder))
        write_entry(self.context.store, self.key, IndexEntry(ref=ref, source=self.source))
        resumed = work.journal.resumed is not None
        return StageOutcome(ref, time.perf_counter() - began, False, resumed, peak, work.metrics)
