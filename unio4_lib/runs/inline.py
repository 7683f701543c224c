"""The whole method in one process: every stage in turn, each reused, resumed or computed."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.learning.journal import Preemption
from unio4_lib.learning.memory import give_back_freed_memory
from unio4_lib.methods.configs import method_of
from unio4_lib.progress import Reporter, Stopped
from unio4_lib.runs.dry_run import announce
from unio4_lib.runs.folder import RunFolder, circumstances
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.device import choose_device
from unio4_lib.stages.outcome import StageOutcome
from unio4_lib.stages.repair import Stages
from unio4_lib.stages.step import OFFLINE, ONLINE, Step
from unio4_lib.stages.switch import goes_online, verdict
from unio4_lib.stages.tracked import tell_settings
from unio4_lib.tracking.tracker import Tracking

SPOOL = "tracking"  # below the folder of a run
BRANCHES = 2  # stages side by side
ARTIFACT_ROOT = "artifacts"  # below the output, where no other root is given


def run(
    config: RunConfig,
    output: Path,
    console: Console | None = None,
    *,
    finetune: str = "always",
    artifact_root: str | os.PathLike[str] | None = None,
    reuse: bool = True,
    cache: Path | None = None,
    tracking: Tracking | None = None,
    preemption: Preemption | None = None,
) -> dict[str, Any]:
    """Run everything and return the summary that also stands in the run's ``summary.json``."""
    method_of(config).check_choice(finetune)
    choose_device(config)  # a device that is not there is found before anything else
    with (
        Reporter(console) as reporter,
        StageContext(
            artifact_root if artifact_root is not None else output / ARTIFACT_ROOT,
            reporter=reporter,
            cache=cache,
            reuse=reuse,
            preemption=preemption,
        ) as context,
    ):
        return _Run(config, output, context, tracking, finetune).all_stages()


class _Run:
    """The stages of one run in their order, with what they hand on."""

    def __init__(
        self,
        config: RunConfig,
        output: Path,
        context: StageContext,
        tracking: Tracking | None,
        finetune: str,
    ) -> None:
        self.config, self.output, self.context = config, output, context
        self.finetune, self.method = finetune, method_of(config)
        self.tracking = tracking if tracking is not None else Tracking(uri=None)
        self.refs: dict[str, ArtifactRef] = {}
        self.outcomes: dict[str, StageOutcome] = {}

    def all_stages(self) -> dict[str, Any]:
        """Every stage; the folder comes first, so that a place that cannot be written to is found at once."""
        self.folder = RunFolder(self.output, self.config)
        reporter, store = self.context.reporter, self.context.store
        try:
            announce(self.config, store.uri, self.output, reporter, reuse=self.context.reuse)
            self._tracked_stages()
            summary = self.folder.result(self.context)
            summary |= circumstances(self.folder.run_id, self.config, self._in_order())
            summary["place"] = self.folder.place(self.context.store.uri, self.tracking.uri)
            self.folder.finish(summary)
            return summary
        except BaseException as error:
            self.folder.fail(error, list(self._in_order()))
            raise
        finally:
            give_back_freed_memory()  # a notebook goes on, and so do runs one after another

    def _tracked_stages(self) -> None:
        say, spool = self.context.reporter.say, self.folder.path / SPOOL
        with self.tracking.tracker(self.folder.run_id, spool, self.output, say) as tracker:
            self.context.tracker = tracker
            with tracker.run() as run:
                tell_settings(run, self.config)
                self._stages()

    def _stages(self) -> None:
        for wave in waves(self.method.steps):
            self._together([step for step in wave if step.kind != ONLINE or self._goes_online()])

    def _goes_online(self) -> bool:
        accepted = self.outcomes[self.method.stage_names()[OFFLINE]].metrics.get("accepted")
        if self.finetune != "always":
            self.context.reporter.say(verdict(self.finetune, accepted))
        return goes_online(self.finetune, accepted)

    def _together(self, steps: Sequence[Step]) -> None:
        """Steps that need nothing of each other.

        Networks of this size are fastest on one thread each, so two branches use two cores. Each stage
        has generators of its own: running side by side changes no number.
        """
        if len(steps) == 1:
            self._stage(steps[0])
            return
        # A failure anywhere stops the others at their next report, before the pool is waited for.
        with ThreadPoolExecutor(max_workers=BRANCHES) as pool, self.context.reporter.together():
            running = [pool.submit(self._beside, step) for step in steps]
            wait(running)
        errors = [error for error in (branch.exception() for branch in running) if error is not None]
        if errors:  # one that was stopped says nothing of why
            raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])

    def _beside(self, step: Step) -> None:
        with self.context.reporter.together():
            self._stage(step)

    def _stage(self, step: Step) -> None:
        inputs = {kind: self.refs[kind] for kind in step.inputs if kind in self.refs}
        outcome = Stages(self.method.steps, self.config, self.context).run(step, inputs)
        self.outcomes[step.name], self.refs[step.kind] = outcome, outcome.ref
        self.folder.keep(step.kind, outcome.ref, self.context)

    def _in_order(self) -> dict[str, StageOutcome]:
        names = self.method.stage_names().values()
        return {name: self.outcomes[name] for name in names if name in self.outcomes}


def waves(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps in groups: each needs only what earlier groups make."""
    groups: list[list[Step]] = []
    made: set[str] = set()
    rest = list(steps)
    kinds = {step.kind for step in steps}
    while rest:
        group = [step for step in rest if made.issuperset(kinds.intersection(step.inputs))]
        groups.append(group)
        made.update(step.kind for step in group)
        rest = [step for step in rest if step not in group]
    return groups
