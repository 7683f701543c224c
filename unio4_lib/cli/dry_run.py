"""``unio4 run --dry-run``: the estimate of a run on a terminal."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from unio4_lib.methods.configs import method_of
from unio4_lib.runs.dry_run import Estimate, estimate
from unio4_lib.runs.local_run import artifact_place
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.estimate import duration
from unio4_lib.stages.sizes import check_sizes, shown

PLAIN_WIDTH = 100  # of tables when the output is no terminal
MEANING = """\
Memory and disk: at least so much, for the networks and rows that the settings name.
Time: of one processor, for the products of the networks and for the steps of the environment that the
settings ask for, at the pace that they have here; what is unknown is not in the sum. Evaluations and all
else come on top: a whole run of Uni-O4 takes two to four times that, less with patience."""


def show_estimate(
    config: RunConfig, output: Path, artifact_root: str | None, *, reuse: bool, as_json: bool
) -> None:
    """Print what a run would ask for; nothing is started and nothing written."""
    check_sizes(config, method_of(config).steps)
    found = estimate(config, artifact_place(artifact_root, output), output, reuse=reuse)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        _print(found)


def _print(found: Estimate) -> None:
    table = Table("stage", *(Column(name, justify="right") for name in ("memory", "disk", "time")))
    for stage in found.stages:
        cells = (
            ("reused", "", "")
            if stage.reused
            else _cells(stage.memory_bytes, stage.disk_bytes, stage.seconds)
        )
        table.add_row(stage.stage, *cells)
    console = Console()
    (console if console.is_terminal else Console(width=PLAIN_WIDTH)).print(table)
    here, free = shown(found.machine_memory_bytes), shown(found.free_disk_bytes)
    print(f"in all {duration(found.seconds)}, one stage after another, and {shown(found.disk_bytes)} of disk")
    print(f"this machine has {here} of memory and {free} free where the runs go")
    print(MEANING)


def _cells(memory: int, disk: int, seconds: float | None) -> tuple[str, str, str]:
    return shown(memory), shown(disk), "unknown" if seconds is None else duration(seconds)
