"""``unio4 dataset``: list, inspect and collect datasets."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn
from rich.table import Column, Table

from unio4_lib.cli.app import App
from unio4_lib.cli.console import results_only
from unio4_lib.cli.errors import explain
from unio4_lib.data.inspect import describe
from unio4_lib.data.transitions import Transitions
from unio4_lib.errors import InputError
from unio4_lib.sources.collect_spec import ASKED_BY_NAME
from unio4_lib.sources.grammar import collect_spec, load_transitions, parse_source
from unio4_lib.sources.minari_source import datasets_root, local_ids, read_metadata, summarize_episodes

app = App(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, inspect and collect datasets.",
)

BAR_WIDTH = 40
LINE_SECONDS = 10.0  # between lines of progress when there is no terminal
PLAIN_WIDTH = 100  # of tables when the output is no terminal
LIST_WIDTH = 1000  # the same where names must stay whole

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")]
Download = Annotated[bool, typer.Option(help="Let Minari download what is not on this machine.")]
ClipActions = Annotated[bool, typer.Option(help="Clip actions into their bounds instead of refusing them.")]


@app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """Datasets of Minari on this machine."""
    rows = [_summary(dataset_id) for dataset_id in local_ids()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(
            f"No dataset in {datasets_root()}. Set MINARI_DATASETS_PATH, or record one: "
            "unio4 dataset collect Hopper-v5 --level medium"
        )
        return
    table = Table(Column("source", no_wrap=True), "environment", "episodes", "steps", "return", "score", "MB")
    for row in rows:
        about = "" if row["returns_read"] == row["episodes"] else "~"
        table.add_row(
            f"minari:{row['id']}",
            row["env_id"] or "-",
            *(_number(row[key], "{:,.0f}") for key in ("episodes", "steps")),
            *(_number(row[key], about + "{:,.1f}") for key in ("mean_return", "normalized")),
            _number(row["megabytes"], "{:.1f}"),
        )
    _console(LIST_WIDTH).print(table)
    for row in rows:
        if row["problem"]:
            typer.echo(f"minari:{row['id']}: {row['problem']}", err=True)


@app.command("inspect")
def inspect(
    source: Annotated[str, typer.Argument(help="Such as minari:mujoco/hopper/medium-v0.")],
    as_json: AsJson = False,
    download: Download = True,
    clip_actions: ClipActions = False,
) -> None:
    """Check a dataset and its environment; show sizes, returns, lengths, ends, actions and what is odd."""
    with results_only(), _here(source) as local:
        transitions = load_transitions(local, download=download, clip_actions=clip_actions)
        facts = {**describe(transitions), "environment_problem": _misfit(transitions)}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    console = _console()
    for line in _head(facts):
        console.print(line, markup=False, highlight=False)
    console.print(_quantile_table(facts))
    console.print(_action_table(facts))
    console.print("Episode returns", style="bold")
    for line in (*_histogram(facts["returns"]["histogram"]), *_warnings(facts)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _misfit(transitions: Transitions) -> str | None:
    """Why a run would refuse the environment of a dataset; None where the two fit each other."""
    from unio4_lib.stages.task import check_environment  # a simulator, only when asked for

    try:
        check_environment(transitions)
    except InputError as error:
        return " ".join(str(error).split())
    return None


def _warnings(facts: dict[str, Any]) -> list[str]:
    misfit = facts["environment_problem"]
    refusal = [] if misfit is None else [f"warning: a run would refuse this dataset: {misfit}"]
    return [f"note: {note}" for note in facts["notes"]] + refusal


@contextlib.contextmanager
def _here(source: str) -> Iterator[str]:
    """A source of this machine; only what lies in object storage needs the parts that bring it."""
    if not source.startswith("s3:"):
        yield source
        return
    from unio4_lib.artifacts.cache import Cache
    from unio4_lib.artifacts.ref import ARTIFACTS
    from unio4_lib.sources.remote import local_source
    from unio4_lib.stages.context import default_cache

    with local_source(source, Cache(default_cache() / ARTIFACTS)) as local:
        yield local


@app.command("push")
def push_dataset(
    source: Annotated[str, typer.Argument(help="Such as transitions:data/my-robot.")],
    target: Annotated[str, typer.Argument(help="s3://<bucket>/<prefix>, which then is a source.")],
) -> None:
    """Check a dataset and put it into object storage, where every stage can read it."""
    from unio4_lib.sources.remote import push
    from unio4_lib.stages.context import default_cache

    with results_only():
        place = push(source, target, default_cache() / "push")
    typer.echo(place.uri)


@app.command("collect")
def collect_dataset(
    environment: Annotated[str, typer.Argument(help="Environment id, or a whole collect: source.")],
    level: Annotated[str | None, typer.Option(help=f"One of {', '.join(ASKED_BY_NAME)}.")] = None,
    target: Annotated[
        float | None, typer.Option(help="Train until this mean return instead of a level.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Environment steps to record.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of training and recording.")] = None,
    train_steps: Annotated[int | None, typer.Option(help="Most environment steps of training.")] = None,
    noise: Annotated[float | None, typer.Option(help="Std of added action noise.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Train nothing: the policy of this run or folder acts.")
    ] = None,
    env_kwarg: Annotated[
        list[str] | None, typer.Option(help="name=value for the environment; repeat it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a behavior, record it and print the source of the new dataset."""
    flags = {
        "level": level,
        "target": target,
        "steps": steps,
        "seed": seed,
        "train_steps": train_steps,
        "noise": noise,
        "policy": None if policy is None else quote(str(policy)),
    }
    spec = collect_spec(parse_source(_collect_source(environment, flags, env_kwarg or [])))
    from unio4_lib.sources.collect import (
        collect,  # trains a policy: torch and a simulator, only when asked for
    )

    with results_only(), _collect_progress() as progress:
        source = f"minari:{collect(spec, progress)}"
    typer.echo(json.dumps({"source": source}) if as_json else source)


@contextlib.contextmanager
def _collect_progress() -> Iterator[Callable[[str, int, int, float], None]]:
    """A bar on a terminal, one line per interval otherwise; always on standard error."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("return {task.fields[mean_return]:,.0f}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}
        printed = time.monotonic()

        def report(phase: str, done: int, total: int, mean_return: float) -> None:
            nonlocal printed
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total, mean_return=mean_return)
            bar.update(tasks[phase], completed=done, total=total, mean_return=mean_return)
            if not console.is_terminal and time.monotonic() - printed >= LINE_SECONDS:
                printed = time.monotonic()
                typer.echo(f"{phase}: {done:,} of {total:,} steps, mean return {mean_return:,.0f}", err=True)

        yield report


def _collect_source(environment: str, flags: dict[str, Any], env_kwargs: list[str]) -> str:
    text = environment if environment.startswith("collect:") else f"collect:{environment}"
    pairs = [f"{name}={value}" for name, value in flags.items() if value is not None]
    for pair in env_kwargs:
        if "=" not in pair:
            raise InputError(f"--env-kwarg {pair}: must be name=value")
        pairs.append(f"env.{pair}")
    if not pairs:
        return text
    return f"{text}{'&' if '?' in text else '?'}{'&'.join(pairs)}"


def _summary(dataset_id: str) -> dict[str, Any]:
    """One row of the list; a dataset that cannot be read is listed with its problem."""
    row: dict[str, Any] = dict.fromkeys(
        ("env_id", "episodes", "steps", "mean_return", "returns_read", "normalized", "megabytes", "problem")
    )
    try:
        row.update(summarize_episodes(dataset_id, read_metadata(dataset_id)))
    except Exception as error:  # whatever is wrong with one, the others are listed
        row["problem"] = explain(error)[0]
    return {"id": dataset_id, **row}


def _console(width: int = PLAIN_WIDTH) -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=width, color_system=None)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _head(facts: dict[str, Any]) -> list[str]:
    returns, ends = facts["returns"], facts["ends"]
    episodes = facts["episodes"]
    lines = [
        f"{facts['source']}  ({facts['env_id']})",
        f"{facts['transitions']:,} transitions in {episodes:,} episodes, {facts['bytes'] / 1e6:,.1f} MB, "
        f"sha256 {facts['digest'][:12]}",
    ]
    lines += [f"  {name:<18} {field['dtype']:<8} {field['shape']}" for name, field in facts["fields"].items()]
    score = facts["normalized_mean"]
    lines += [
        f"Mean return {returns['mean']:,.1f} ± {returns['std']:,.1f} (std), normalized score "
        + ("unknown: no reference scores" if score is None else f"{score:.1f}"),
        f"Episode ends: {ends['terminals']:,} terminals ({ends['terminals'] / episodes:.1%}), "
        f"{ends['timeouts']:,} timeouts ({ends['timeouts'] / episodes:.1%})",
    ]
    return lines


def _quantile_table(facts: dict[str, Any]) -> Table:
    names = list(facts["returns"]["quantiles"])
    table = Table("quantile", *[f"{float(name):.0%}" for name in names])
    for label in ("returns", "lengths"):
        values = cast(dict[str, float], facts[label]["quantiles"])
        table.add_row(
            label,
            *[
                f"{values[name]:,.0f}" if abs(values[name]) >= 100 else f"{values[name]:.3g}"
                for name in names
            ],
        )
    return table


def _action_table(facts: dict[str, Any]) -> Table:
    table = Table("action", "bounds", "range", "mean", "std", "at low", "at high")
    for index, action in enumerate(facts["actions"]):
        table.add_row(
            str(index),
            f"{action['low']:g} .. {action['high']:g}",
            f"{action['min']:.3f} .. {action['max']:.3f}",
            f"{action['mean']:.3f}",
            f"{action['std']:.3f}",
            f"{action['share_at_low']:.1%}",
            f"{action['share_at_high']:.1%}",
        )
    return table


def _histogram(histogram: dict[str, list[float]]) -> list[str]:
    counts, edges = histogram["counts"], histogram["edges"]
    labels = [f"{low:,.4g} .. {high:,.4g}" for low, high in pairwise(edges)]
    width = max(map(len, labels))
    return [
        f"  {label:>{width}}  {'#' * round(BAR_WIDTH * count / max(counts)):<{BAR_WIDTH}} {count:,.0f}"
        for label, count in zip(labels, counts, strict=True)
    ]
