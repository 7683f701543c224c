"""``unio4 run --dry-run``: the estimate of a run on a terminal."""

import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from unio4_lib.methods.configs import method_of
from unio4_lib.runs.dry_run import Estimate, estimate
from unio4_lib.runs.local_run import artifact_place
from unio4_lib.settings.model import RunConfig
from unio4_lib.stages.sizes import check_sizes, shown

PLAIN_WIDTH = 100  # of tables when the output is no terminal
MINUTE = 60.0
MEANING = """\
Memory and disk: at least so much, for the networks and rows that the settings name.
Time: what products of the networks and single steps of the environment took here just now, as often as
the settings ask for them; what is unknown is not in the sum. Evaluations, reading and writing come on top;
a stage with patience, and episodes, may end sooner."""


def show_estimate(config: RunConfig, output: Path, artifact_root: str | None, *, as_json: bool) -> None:
    """Print what a run would ask for; nothing is started and nothing written."""
    check_sizes(config, method_of(config).steps)
    found = estimate(config, artifact_place(artifact_root, output), output, _free)
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
    todo = [stage for stage in found.stages if not stage.reused]
    total, disk = sum(stage.seconds or 0.0 for stage in todo), sum(stage.disk_bytes for stage in todo)
    here, free = shown(found.machine_memory_bytes), shown(found.free_disk_bytes)
    print(f"in all {_duration(total)}, one stage after another, and {shown(disk)} of disk")
    print(f"this machine has {here} of memory and {free} free where the runs go")
    print(MEANING)


def _cells(memory: int, disk: int, seconds: float | None) -> tuple[str, str, str]:
    return shown(memory), shown(disk), "unknown" if seconds is None else _duration(seconds)


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < MINUTE * MINUTE:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / MINUTE / MINUTE:.1f} h"


def _free(output: Path) -> int:
    """Bytes that the disk of a folder has, whether or not the folder is there yet."""
    place = output.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
