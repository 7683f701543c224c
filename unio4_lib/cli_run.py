"""``unio4 run``: through the pipeline, or the stages in this process."""

from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from unio4_lib.config import RunConfig
from unio4_lib.errors import InputError
from unio4_lib.stages.catalog import STAGE_NAMES
from unio4_lib.stages.sizes import check_sizes
from unio4_lib.tracking.tracker import Tracking
from unio4_lib.training.journal import Preemption

INLINE = "inline"


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
    check_sizes(config, STAGE_NAMES)
    if runner == INLINE:
        from unio4_lib.run import run

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
    from unio4_lib.pipeline.local_run import LocalRun, Runner, artifact_place, run_pipeline
    from unio4_lib.stages.context import default_cache

    if runner not in get_args(Runner):
        raise InputError(f"--runner {runner}: expected one of {', '.join((*get_args(Runner), INLINE))}")
    told = LocalRun(
        config,
        preset,
        output,
        runner,  # type: ignore[arg-type]  # checked above
        artifact_place(artifact_root, output),
        reuse,
        (cache or default_cache()).absolute(),
        tracking,
        finetune,
    )
    return run_pipeline(told, console, preemption)
