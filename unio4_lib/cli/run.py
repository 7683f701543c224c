"""``unio4 run``: through the pipeline, or the stages in this process."""

from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from unio4_lib.errors import InputError
from unio4_lib.learning.journal import Preemption
from unio4_lib.methods.configs import method_of
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.sizes import check_sizes
from unio4_lib.tracking.tracker import Tracking

INLINE = "inline"


def check_runner(runner: str) -> None:
    """One of those that there are."""
    from unio4_lib.runs.local_run import Runner

    if runner != INLINE and runner not in get_args(Runner):
        raise InputError(f"--runner {runner}: expected one of {', '.join((*get_args(Runner), INLINE))}")


def run_method(
    config: RunConfig,
    preset: str,
    output: Path,
    *,
    runner: str,
    finetune: str,
    artifact_root: str | None,
    reuse: bool,
    cache: Path | None,
    tracking: Tracking,
    preemption: Preemption,
    console: Console | None,
) -> dict[str, Any]:
    """Run everything; returns the summary."""
    check_sizes(config, method_of(config).steps)
    if runner == INLINE:
        from unio4_lib.runs.inline import run

        return run(
            config,
            output,
            console,
            finetune=finetune,
            artifact_root=artifact_root,
            reuse=reuse,
            cache=cache,
            tracking=tracking,
            preemption=preemption,
        )
    from unio4_lib.runs.local_run import LocalRun, artifact_place, run_pipeline
    from unio4_lib.stages.context import default_cache

    told = LocalRun(
        config,
        preset,
        output,
        runner,  # type: ignore[arg-type]  # checked before
        artifact_place(artifact_root, output),
        reuse,
        (cache or default_cache()).absolute(),
        tracking,
        finetune,
    )
    return run_pipeline(told, console, preemption)
