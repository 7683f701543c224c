"""``unio4 run``: the compiled pipeline on this machine, and the folder that it leaves behind."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from rich.console import Console

from unio4_lib.artifacts.ref import ArtifactRef
from unio4_lib.artifacts.store import open_store
from unio4_lib.errors import InputError, Preempted
from unio4_lib.files import local_path
from unio4_lib.learning.journal import Preemption
from unio4_lib.methods.configs import method_of
from unio4_lib.methods.method import Method
from unio4_lib.progress import Reporter
from unio4_lib.runs.arguments import Asked
from unio4_lib.runs.executor import FAILED, LocalPipeline, TaskReport
from unio4_lib.runs.folder import TASKS, RunFolder, circumstances
from unio4_lib.runs.launch import ContainerLauncher, Launcher, ProcessLauncher
from unio4_lib.runs.spec import PipelineSpec, Values, compiled
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.context import CACHE_VARIABLE, RUN_KEY_VARIABLE, SPOOL_VARIABLE, StageContext
from unio4_lib.stages.outcome import StageOutcome
from unio4_lib.stages.tracked import tell_settings
from unio4_lib.tracking.address import NO_TRACKING, for_stages
from unio4_lib.tracking.tracker import Tracking

Runner = Literal["process", "docker"]
ARTIFACT_ROOT, SPOOL = "artifacts", "tracking"
EXIT_BAD_INPUT = 2
# Sources whose data is a file or folder of this machine.
LOCAL_SOURCES = ("d4rl", "transitions")


class StageFailed(RuntimeError):  # noqa: N818 - reads as a statement of what happened
    """A stage ended badly; the message is its own."""


@dataclass(frozen=True)
class LocalRun:
    """What a run on this machine is told."""

    config: RunConfig
    preset: str
    output: Path
    runner: Runner
    artifact_root: str
    reuse: bool
    cache: Path
    tracking: Tracking
    finetune: str

    @property
    def own_sender(self) -> bool:
        """Whether tasks talk to MLflow themselves, as on a cluster: containers do if there is a server."""
        uri = self.tracking.uri
        server = uri is not None and urlsplit(uri).scheme in ("http", "https")
        return self.runner == "docker" and server and self.tracking.register is None

    def arguments(self, spec: PipelineSpec) -> Values:
        """The parameters of the pipeline."""
        asked = Asked(
            spec,
            self.config,
            self.preset,
            self.artifact_root,
            self.tracking.uri,
            self.tracking.experiment,
            self.finetune,
            self.reuse,
        )
        return asked.of_run(self.tracking.run_name or "")


def artifact_place(chosen: str | None, output: Path) -> str:
    """Where the bytes go, beside the runs where nobody says; folders are absolute, as tasks run elsewhere."""
    place = chosen or str(output / ARTIFACT_ROOT)
    open_store(place)  # contacts nobody; a place that cannot be one is refused
    return place if "://" in place else str(Path(place).absolute())


def run_pipeline(told: LocalRun, console: Console | None, preemption: Preemption) -> dict[str, Any]:
    """Run the pipeline and return the summary that also stands in the run's ``summary.json``."""
    from unio4_lib.runs.dry_run import announce  # with the simulators, which nothing else here needs

    with Reporter(console) as reporter:
        folder = RunFolder(told.output, told.config)
        outcomes: dict[str, StageOutcome] = {}
        try:
            announce(told.config, told.artifact_root, told.output, reporter, reuse=told.reuse)
            _execute(told, folder, reporter, preemption, outcomes)
            return _collect(told, folder, reporter, outcomes)
        except BaseException as error:
            folder.fail(error, list(outcomes))
            raise


def _execute(
    told: LocalRun,
    folder: RunFolder,
    reporter: Reporter,
    preemption: Preemption,
    outcomes: dict[str, StageOutcome],
) -> None:
    """All tasks; ``outcomes`` has what the finished ones made, whatever happens to the others."""
    spool = (folder.path / SPOOL).absolute()
    environment = {RUN_KEY_VARIABLE: folder.run_id, CACHE_VARIABLE: str(told.cache)}
    environment |= reporter.child_environment
    if told.own_sender:
        environment |= for_stages(told.tracking.uri)
    with ExitStack() as stack:
        if not told.own_sender:
            # One process carries the numbers of all stages: starting one for each costs seconds every time.
            tracker = stack.enter_context(
                told.tracking.tracker(folder.run_id, spool, told.output, reporter.say)
            )
            tell_settings(stack.enter_context(tracker.run()), told.config)
            environment[SPOOL_VARIABLE] = str(spool) if tracker.active else NO_TRACKING
        places = [folder.path.absolute(), told.cache]
        launcher = make_launcher(told.runner, places, told.artifact_root, [told.config.dataset])
        spec = PipelineSpec.load(compiled(method_of(told.config).pipeline))
        pipeline = LocalPipeline(
            spec,
            launcher,
            (folder.path / TASKS).absolute(),
            environment=environment,
            say=reporter.relay,
            ended=lambda: preemption.requested,
        )
        try:
            well = pipeline.run(told.arguments(spec))
        finally:
            outcomes.update(_outcomes(method_of(told.config), pipeline.reports))
        if not well:
            raise failure(pipeline.reports)


def make_launcher(
    runner: Runner, folders: Sequence[Path], artifact_root: str, datasets: Sequence[str]
) -> Launcher:
    """How tasks are started; containers see these folders, the artifacts and the data, and nothing else."""
    if runner == "process":
        processes = ProcessLauncher()
        processes.check()
        return processes
    places = list(folders)
    if "://" not in artifact_root:
        places.append(Path(artifact_root))
    readable = {place for dataset in datasets for place in _sources(dataset)}
    launcher = ContainerLauncher(tuple(places), tuple(sorted(readable)))
    launcher.check()
    for place in places:
        launcher.make_folder(place)
    return launcher


def _sources(dataset: str) -> list[Path]:
    """Where the data of a source is on this machine."""
    from unio4_lib.sources.given_policy import policy_folder
    from unio4_lib.sources.grammar import parse_source

    source = parse_source(dataset)
    if source.scheme in LOCAL_SOURCES:
        place = local_path(source.place).absolute()
        return [place.parent if place.is_file() else place]
    if source.scheme == "collect" and "policy" in source.options:
        return [policy_folder(source.options["policy"]).absolute()]
    named = os.environ.get("MINARI_DATASETS_PATH")
    home = Path(named) if named else Path.home() / ".minari" / "datasets"
    return [home.absolute()] if source.scheme == "minari" and home.is_dir() else []


def failure(reports: list[TaskReport]) -> Exception:
    """What a run that did not end well says: the line of the stage that failed."""
    failed = [report for report in reports if report.state == FAILED]
    if failed:
        kind = InputError if failed[0].code == EXIT_BAD_INPUT else StageFailed
        return kind(failed[0].error)
    return Preempted("asked to end; what is finished is kept, start again to go on")


def _outcomes(method: Method, reports: list[TaskReport]) -> dict[str, StageOutcome]:
    """What stages made, in their order."""
    found: dict[str, StageOutcome] = {}
    names = method.stage_names()
    for report in reports:
        for kind, artifact in report.outputs.artifacts.items():
            if kind in names:
                found[names[kind]] = outcome_of(artifact)
    return {name: found[name] for name in names.values() if name in found}


def outcome_of(artifact: Mapping[str, Any]) -> StageOutcome:
    """A stage's outcome from what KFP keeps of its artifact."""
    facts = artifact["metadata"]
    return StageOutcome(
        ArtifactRef.load(Path(artifact["uri"])),
        facts["seconds"],
        facts["reused"],
        facts["resumed"],
        int(facts["peak_memory_bytes"]),
        {},
    )


def _collect(
    told: LocalRun, folder: RunFolder, reporter: Reporter, outcomes: dict[str, StageOutcome]
) -> dict[str, Any]:
    """Copy what people want at hand into the run's folder, and write the summary."""
    with StageContext(told.artifact_root, reporter=reporter, cache=told.cache) as context:
        for outcome in outcomes.values():
            folder.keep(outcome.ref.kind, outcome.ref, context)
        summary = folder.result(context)
        summary |= circumstances(folder.run_id, told.config, outcomes)
        summary["place"] = folder.place(context.store.uri, told.tracking.uri)
        folder.finish(summary)
        return summary
