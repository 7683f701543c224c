"""The stages of a run, where an artifact that turns out to be damaged is made again, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.s3 import StoreError
from unio4_lib.errors import InputError
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.context import DamagedArtifact, StageContext
from unio4_lib.stages.fingerprint import fingerprint, read_entry
from unio4_lib.stages.outcome import StageOutcome
from unio4_lib.stages.runner import run_stage
from unio4_lib.stages.step import Step

Refs = Mapping[str, ArtifactRef]  # by kind


@dataclass(frozen=True)
class Stages:
    """The steps of a method under the settings of one run."""

    steps: Sequence[Step]
    config: RunConfig
    context: StageContext

    def run(self, step: Step, inputs: Refs) -> StageOutcome:
        """One stage; of its inputs, those that are damaged are made again first."""
        mended: set[str] = set()
        while True:
            try:
                return run_stage(step, self.config, inputs, self.context)
            except DamagedArtifact as damage:
                if damage.ref.digest in mended:
                    raise
                mended.add(damage.ref.digest)
                self._say_and_remove(step.name, damage)
                if damage.ref.kind != step.kind:  # its own is made by the next attempt
                    self._make_again(damage, inputs)

    def hold(self, ref: ArtifactRef, refs: Refs) -> Path:
        """The verified folder of an artifact of the run, which is made again if it is damaged."""
        try:
            return self.context.hold(ref)
        except DamagedArtifact as damage:
            self._say_and_remove(self._producer(ref.kind).name, damage)
            self._make_again(damage, refs)
            return self.context.hold(ref)

    def _producer(self, kind: str) -> Step:
        return next(step for step in self.steps if step.kind == kind)

    def _say_and_remove(self, name: str, damage: DamagedArtifact) -> None:
        """Remove what is damaged, also for runs to come; not what someone else has mended meanwhile."""
        store = self.context.store
        if damage.ref.root != store.uri:
            raise damage
        self.context.reporter.say(f"{name}: {damage.ref.kind} is damaged, is made again: {damage}")
        try:
            store.verify(damage.ref.digest)
        except StoreError:
            raise
        except InputError:
            store.delete(damage.ref.digest)

    def _make_again(self, damage: DamagedArtifact, refs: Refs) -> None:
        """Run the producer of an artifact; what comes out has to be the same, as others go on with it."""
        step, digest = self._producer(damage.ref.kind), damage.ref.digest
        start_again = f"{damage}; it was removed, and {step.name} makes it anew when the run is started again"
        try:
            inputs = self._inputs(step, refs)
            entry = read_entry(self.context.store, fingerprint(step, self.config, inputs))
            if entry is None or entry.ref.digest != digest:
                raise InputError("this stage does not know how it was made")
            if self.run(step, inputs).ref.digest != digest:
                raise InputError("what is made now differs")
        except StoreError:
            raise
        except (InputError, ImportError) as error:  # an image may lack what the producer needs
            raise InputError(f"{start_again} (here it cannot: {error})") from error

    def _inputs(self, step: Step, refs: Refs) -> dict[str, ArtifactRef]:
        """What a stage was given in this run: as far as it is not known, as the index says."""
        found = {}
        for kind in step.inputs:
            if kind in refs:
                found[kind] = refs[kind]
            elif kind not in step.optional:
                producer = self._producer(kind)
                key = fingerprint(producer, self.config, self._inputs(producer, refs))
                entry = read_entry(self.context.store, key)
                if entry is None:
                    raise InputError(f"no {kind} of these settings is known")
                found[kind] = entry.ref
        return found
