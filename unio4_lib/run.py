"""The whole method in one process: every stage in turn, each reused, resumed or computed."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.config import RunConfig
from unio4_lib.progress import Reporter, Stopped
from unio4_lib.run_folder import RunFolder, circumstances
from unio4_lib.stages.catalog import STAGE_NAMES, find_stage
from unio4_lib.stages.context import StageContext
from unio4_lib.stages.method import choose_device
from unio4_lib.stages.runner import StageOutcome, run_stage
from unio4_lib.stages.switch import goes_online, verdict
from unio4_lib.stages.tracked import tell_settings
from unio4_lib.tracking.tracker import Tracking
from unio4_lib.training.journal import Preemption

SPOOL = "tracking"  # below the folder of a run
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
        self.finetune = finetune
        self.tracking = tracking if tracking is not None else Tracking(uri=None)
        self.refs: dict[str, ArtifactRef] = {}
        self.outcomes: dict[str, StageOutcome] = {}

    def all_stages(self) -> dict[str, Any]:
        """Every stage; the folder comes first, so that a place that cannot be written to is found at once."""
        self.folder = RunFolder(self.output, self.config)
        try:
            self._tracked_stages()
            summary = self.folder.result(self.context)
            summary |= circumstances(self.folder.run_id, self.config, self._in_order())
            summary["place"] = self.folder.place(self.context.store.uri, self.tracking.uri)
            self.folder.finish(summary)
            return summary
        except BaseException as error:
            self.folder.fail(error, [name for name in STAGE_NAMES if name in self.outcomes])
            raise

    def _tracked_stages(self) -> None:
        say, spool = self.context.reporter.say, self.folder.path / SPOOL
        with self.tracking.tracker(self.folder.run_id, spool, self.output, say) as tracker:
            self.context.tracker = tracker
            with tracker.run() as run:
                tell_settings(run, self.config)
                self._stages()

    def _stages(self) -> None:
        self._stage("prepare-dataset")
        self._learn_from_data()
        self._stage("improve-policy")
        accepted = self.outcomes["improve-policy"].metrics["accepted"]
        if self.finetune != "always":
            self.context.reporter.say(verdict(self.finetune, accepted))
        if goes_online(self.finetune, accepted):
            self._stage("finetune-online")
        self._stage("report")

    def _learn_from_data(self) -> None:
        """Cloning and critics beside the models: they need nothing of each other.

        Networks of this size are fastest on one thread each, so two branches use two cores. Each stage
        has generators of its own: running side by side changes no number.
        """
        reporter = self.context.reporter
        # A failure on either side stops the other at its next report, before the pool is waited for.
        with ThreadPoolExecutor(max_workers=1) as pool, reporter.together():
            models = pool.submit(self._fit_dynamics)
            with suppress(Stopped):  # then the models failed, and their result says why
                self._stage("clone-behavior")
                self._stage("fit-critics")
            models.result()

    def _fit_dynamics(self) -> None:
        with self.context.reporter.together():
            self._stage("fit-dynamics")

    def _stage(self, name: str) -> None:
        stage = find_stage(name)
        inputs = {kind: self.refs[kind] for kind in stage.inputs if kind in self.refs}
        outcome = run_stage(name, self.config, inputs, self.context)
        self.outcomes[name], self.refs[stage.kind] = outcome, outcome.ref
        self.folder.keep(stage.kind, outcome.ref, self.context)

    def _in_order(self) -> dict[str, StageOutcome]:
        return {name: self.outcomes[name] for name in STAGE_NAMES if name in self.outcomes}
