"""A sweep on this machine: a pipeline for each member, and the leaderboard that they leave behind."""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from unio4_lib.learning.journal import Preemption
from unio4_lib.progress import Reporter
from unio4_lib.runs.executor import LocalPipeline, TaskReport, core_slots
from unio4_lib.runs.folder import PRIVATE
from unio4_lib.runs.local_run import Runner, failure, make_launcher
from unio4_lib.runs.spec import PipelineSpec, Values, compiled
from unio4_lib.stages.context import CACHE_VARIABLE, RUN_KEY_VARIABLE
from unio4_lib.stages.sweep import Member
from unio4_lib.tracking.address import for_stages

LEADERBOARD = {"table": "leaderboard.md", "page": "leaderboard.html"}
AT_A_TIME = 4  # members; their stages share the machine's slots


@dataclass(frozen=True)
class LocalSweep:
    """What a sweep on this machine is told; the pipeline and its parameters differ from member to member."""

    members: Sequence[Member]
    pipelines: Mapping[str, PipelineSpec]  # by method
    arguments: Callable[[Member], Values]
    leaderboard: Values
    output: Path
    runner: Runner
    cache: Path
    tracking: str | None = None  # the whole address


def run_sweep(told: LocalSweep, console: Console | None, preemption: Preemption) -> Path:
    """Run all members and compare them; returns the table."""
    with Reporter(console) as reporter:
        sweep = _Sweep(told, reporter, preemption)
        with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
            reports = [report for done in pool.map(sweep.member, told.members) for report in done]
        if preemption.requested:
            raise failure(reports)
        board = sweep.leaderboard()
        if board is None:
            raise failure(reports)
        _copy(board, sweep.folder)
    return sweep.folder / LEADERBOARD["table"]


class _Sweep:
    """What the pipelines of a sweep have in common."""

    def __init__(self, told: LocalSweep, reporter: Reporter, preemption: Preemption) -> None:
        self.told, self.reporter, self.preemption = told, reporter, preemption
        self.name = told.members[0].sweep
        self.folder = (told.output / self.name).absolute()
        self.folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        sources = list(dict.fromkeys(member.dataset for member in told.members))
        root = told.leaderboard["artifact_root"]
        self.launcher = make_launcher(told.runner, [self.folder, told.cache], root, sources)
        self.slots = threading.Semaphore(core_slots())

    def member(self, member: Member) -> list[TaskReport]:
        """One run; what became of its tasks. One that fails leaves the others alone."""
        pipeline = self._pipeline(self.told.pipelines[member.method], member.digest)
        pipeline.run(self.told.arguments(member))
        for report in pipeline.reports:
            if report.error:
                self.reporter.say(f"{member.name}: {report.error}")
        return pipeline.reports

    def leaderboard(self) -> TaskReport | None:
        """The comparison; None where no member came to an end."""
        pipeline = self._pipeline(PipelineSpec.load(compiled("leaderboard")), "leaderboard")
        well = pipeline.run(self.told.leaderboard)
        return next((one for one in pipeline.reports if one.name == "leaderboard"), None) if well else None

    def _pipeline(self, spec: PipelineSpec, name: str) -> LocalPipeline:
        return LocalPipeline(
            spec,
            self.launcher,
            self.folder / name,
            environment={
                RUN_KEY_VARIABLE: self.name,
                CACHE_VARIABLE: str(self.told.cache),
                **for_stages(self.told.tracking),
            },
            say=self.reporter.say,
            ended=lambda: self.preemption.requested,
            slots=self.slots,
        )


def _copy(board: TaskReport, folder: Path) -> None:
    for output, name in LEADERBOARD.items():
        made = Path(board.outputs.artifacts[output]["uri"])
        if made.exists():
            shutil.copyfile(made, folder / name)
