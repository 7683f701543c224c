"""``unio4 bench``: how fast the parts are on this machine."""

import json
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unio4_lib.bench.figures import (
    TOLERATED_LOSS,
    Bench,
    Figure,
    choose,
    kept_ratios,
    lasting_losses,
    run_bench,
)
from unio4_lib.bench.peers import running
from unio4_lib.bench.world import World
from unio4_lib.cli.app import App
from unio4_lib.cli.console import progress_console, results_only
from unio4_lib.cli.errors import EXIT_FAILED
from unio4_lib.cli.options import JsonOption, PresetOption, QuietOption, SetOption
from unio4_lib.errors import InputError
from unio4_lib.progress import Reporter

COLUMNS = (
    *("Loop", "Unit", "Processor time", "± quartiles", "Wall time", "A second", "Ratio"),
    *("Share of products", "Memory"),
)

app = App(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def bench(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="LOOP", help="One of the loops; repeatable.")
    ] = None,
    environment: Annotated[
        str, typer.Option("--env", help="Whose sizes and simulator are used.")
    ] = "Hopper-v5",
    rows: Annotated[int, typer.Option("--rows", min=1_000, help="Rows of random data.")] = 100_000,
    preset: PresetOption = "standard",
    overrides: SetOption = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Everything in turn, so often.")] = 5,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="Of each loop in each round.")] = 0.5,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="COMMAND",
            help="Others' code beside it: 'PYTHON benchmarks/speed_of_d3rlpy.py'.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="File for all figures.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            help=f"A saved benchmark; fail where a loop is slower by more than {TOLERATED_LOSS:.0%}, thrice.",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time every loop beside what this machine could do at most, on random data.

    Processor time of one thread, the median of rounds in which all take turns. A ratio compares a loop with a
    fixed piece of work in the same rounds: it is what can be compared with another day or machine.
    """
    loops = choose(only or ())
    before = None if check is None else kept_ratios(check)
    if save is not None and not save.parent.is_dir():
        raise InputError(f"--save {save}: there is no folder {save.parent}; make it first")
    with tempfile.TemporaryDirectory() as folder, results_only(), running(peers or ()) as started:
        world = World(environment, rows, preset, tuple(overrides or ()), Path(folder))
        reporter = Reporter(None if quiet else progress_console())
        measure = partial(run_bench, world, rounds=rounds, seconds=seconds, reporter=reporter)
        found = measure(loops, started)
        lost = {} if before is None else lasting_losses(found, before, partial(measure, peers=()))
    if save is not None:
        found.save(save)
    print(json.dumps(asdict(found), indent=2) if as_json else table(found))
    for line in lost.values():
        print(f"slower: {line}")
    if lost:
        raise typer.Exit(EXIT_FAILED)


def table(found: Bench) -> str:
    """Everything as a table of Markdown, under what the machine can do."""
    limits, machine = found.limits, found.machine
    head = (
        f"{machine['device']}, PyTorch {machine['torch']}, one thread: products {limits.products:.0f} "
        f"GFLOP/s ({limits.products_bf16:.0f} in bfloat16), memory {limits.memory:.1f} GB/s, an operator "
        f"{limits.call * 1e6:.1f} µs\n"
    )
    rows = (COLUMNS, ("---",) * len(COLUMNS), *map(_cells, found.figures))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, *lines])


def _cells(figure: Figure) -> tuple[str, ...]:
    timing = figure.timing
    return (
        figure.name,
        figure.unit,
        _duration(timing.processor),
        f"{timing.spread:.0%}",
        _duration(timing.wall),
        f"{1.0 / timing.processor:,.0f}" if timing.processor < 0.1 else f"{1.0 / timing.processor:.2f}",
        f"{figure.ratio:.3g}",
        "" if figure.share is None else f"{figure.share:.0%}",
        "" if figure.memory is None else f"{figure.memory:.0f} MB",
    )


def _duration(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
