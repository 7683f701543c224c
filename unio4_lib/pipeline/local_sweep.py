"""A sweep on this machine: the compiled sweep, and the leaderboard that it leaves behind."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from unio4_lib.pipeline.executor import LocalPipeline, TaskReport
from unio4_lib.pipeline.local_run import Runner, failure, make_launcher
from unio4_lib.pipeline.spec import PipelineSpec
from unio4_lib.progress import Reporter
from unio4_lib.run_folder import PRIVATE
from unio4_lib.stages.context import CACHE_VARIABLE, RUN_KEY_VARIABLE
from unio4_lib.tracking.address import for_stages
from unio4_lib.training.journal import Preemption

LEADERBOARD = {"table": "leaderboard.md", "page": "leaderboard.html"}


@dataclass(frozen=True)
class LocalSweep:
    """What a sweep on this machine is told."""

    spec: PipelineSpec
    arguments: dict[str, Any]
    output: Path
    runner: Runner
    cache: Path
    tracking: str | None = None  # the whole address


def run_sweep(told: LocalSweep, console: Console | None, preemption: Preemption) -> Path:
    """Run all members and compare them; returns the table."""
    name = told.arguments["sweep"]
    folder = (told.output / name).absolute()
    environment = {RUN_KEY_VARIABLE: name, CACHE_VARIABLE: str(told.cache), **for_stages(told.tracking)}
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    with Reporter(console) as reporter:
        sources = [member["dataset"] for member in told.arguments["members"]]
        pipeline = LocalPipeline(
            told.spec,
            make_launcher(told.runner, [folder, told.cache], told.arguments["artifact_root"], sources),
            folder,
            environment=environment,
            say=reporter.say,
            ended=lambda: preemption.requested,
        )
        pipeline.run(told.arguments)
        board = next((report for report in pipeline.reports if report.name == "leaderboard"), None)
        if board is None or board.state != "succeeded":
            raise failure(pipeline.reports)
        _copy(board, folder)
    return folder / LEADERBOARD["table"]


def _copy(board: TaskReport, folder: Path) -> None:
    for output, name in LEADERBOARD.items():
        made = Path(board.outputs.artifacts[output]["uri"])
        if made.exists():
            shutil.copyfile(made, folder / name)
