"""``unio4 submit`` and ``unio4 sweep``: the compiled pipelines on a Kubeflow cluster, a sweep also here."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from unio4_lib.cli_console import on_termination, progress_console
from unio4_lib.cli_errors import EXIT_FAILED
from unio4_lib.cli_options import (
    CacheOption,
    ExperimentOption,
    FileOption,
    FinetuneOption,
    NoReuseOption,
    OutputOption,
    PresetOption,
    QuietOption,
    RootOption,
    RunNameOption,
    SeedOption,
    SetOption,
    TrackingOption,
)
from unio4_lib.config_io import load_config
from unio4_lib.errors import InputError
from unio4_lib.pipeline.cluster import Cluster, TaskState
from unio4_lib.pipeline.local_run import Runner, collecting_image, overrides
from unio4_lib.pipeline.local_sweep import LocalSweep, run_sweep
from unio4_lib.pipeline.spec import PipelineSpec, compiled
from unio4_lib.stages.context import default_cache
from unio4_lib.tracking.tracker import NO_TRACKING

CLUSTER = "kfp"
FOLLOW_SECONDS = 5.0

submit_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
sweep_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", envvar="KF_PIPELINES_TOKEN", help="Token for it; better in the variable."),
]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", help="Namespace of the runs.")]
PipelineOption = Annotated[
    Path | None, typer.Option("--pipeline", help="A pipeline compiled with other settings.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")]


@submit_app.command()
def submit(
    dataset: Annotated[str, typer.Option("--dataset", help="A source that the cluster can read.")],
    artifact_root: Annotated[str, typer.Option("--artifact-root", help="s3://bucket/prefix")],
    preset: PresetOption = "quick",
    config: FileOption = None,
    overridden: SetOption = None,
    seed: SeedOption = None,
    finetune: FinetuneOption = "always",
    endpoint: EndpointOption = None,
    token: TokenOption = None,
    namespace: NamespaceOption = None,
    pipeline: PipelineOption = None,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    run_name: RunNameOption = None,
    no_reuse: NoReuseOption = False,
    wait: WaitOption = False,
) -> None:
    """Run the pipeline on a Kubeflow cluster; prints the address of the run."""
    settings = load_config(preset, config, overridden or (), dataset, seed)
    path = pipeline or compiled("unio4")
    name = run_name or _stamped("unio4")
    arguments = {
        "dataset": settings.dataset,
        "preset": preset,
        "seed": settings.seed,
        "overrides": overrides(settings, preset),
        "artifact_root": artifact_root,
        "mlflow_tracking_uri": tracking or NO_TRACKING,
        "experiment": experiment,
        "run_name": name,
        "finetune": finetune,
        "reuse": not no_reuse,
        **collecting_image(PipelineSpec.load(path), settings.dataset),
    }
    _submit(Cluster(endpoint, token, namespace), path, arguments, name, experiment, wait)


@sweep_app.command()
def sweep(
    datasets: Annotated[list[str], typer.Option("--dataset", help="A source; repeatable.")],
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, such as 0-4 or 1,3,7.")] = "0-4",
    runner: Annotated[
        str, typer.Option("--runner", help="On this machine (process, docker) or a cluster (kfp).")
    ] = "process",
    name: Annotated[str | None, typer.Option("--name", help="Name of the sweep.")] = None,
    artifact_root: RootOption = None,
    output: OutputOption = Path("runs"),
    preset: PresetOption = "quick",
    config: FileOption = None,
    overridden: SetOption = None,
    finetune: FinetuneOption = "always",
    endpoint: EndpointOption = None,
    token: TokenOption = None,
    namespace: NamespaceOption = None,
    pipeline: PipelineOption = None,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    no_reuse: NoReuseOption = False,
    cache: CacheOption = None,
    wait: WaitOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run datasets and seeds side by side and compare them."""
    members = _members(datasets, seeds, runner, artifact_root)
    # Each member has its own dataset and seed; the first one shows whether the rest is right.
    settings = load_config(preset, config, overridden or (), datasets[0], members[0]["seed"])
    name, path = name or _stamped("sweep"), pipeline or compiled("sweep")
    spec = PipelineSpec.load(path)
    arguments: dict[str, Any] = {
        "members": members,
        "sweep": name,
        "artifact_root": artifact_root,
        "preset": preset,
        "overrides": overrides(settings, preset),
        "mlflow_tracking_uri": tracking or NO_TRACKING,
        "experiment": experiment,
        "finetune": finetune,
        "reuse": not no_reuse,
    }
    for dataset in datasets:
        arguments |= collecting_image(spec, dataset)
    if runner == CLUSTER:
        _submit(Cluster(endpoint, token, namespace), path, arguments, name, experiment, wait)
        return
    here: Runner = "docker" if runner == "docker" else "process"
    told = LocalSweep(
        spec,
        arguments,
        output,
        here,
        artifact_root,
        (cache or default_cache()).absolute(),
    )
    with on_termination() as preemption:
        page = run_sweep(told, None if quiet else progress_console(), preemption)
    print(page)


def _members(datasets: list[str], seeds: str, runner: str, artifact_root: str | None) -> list[dict[str, Any]]:
    """All runs of a sweep, if they can be run there."""
    if runner not in (*get_args(Runner), CLUSTER):
        raise InputError(f"--runner {runner}: expected one of {', '.join((*get_args(Runner), CLUSTER))}")
    if runner == CLUSTER and (artifact_root is None or "://" not in artifact_root):
        raise InputError(
            "--artifact-root: a cluster needs a place that all its nodes see; expected s3://bucket/prefix"
        )
    return [{"dataset": dataset, "seed": seed} for dataset in datasets for seed in parse_seeds(seeds)]


def parse_seeds(text: str) -> list[int]:
    """Seeds of a list with ranges.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
            raise InputError(f"--seeds {text}: expected numbers and ranges, such as 0-4 or 1,3,7")
        seeds.extend(range(int(low), int(high or low) + 1))
    return list(dict.fromkeys(seeds))


def _stamped(name: str) -> str:
    return f"{name}-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"


def _submit(
    cluster: Cluster, path: Path, arguments: dict[str, Any], name: str, experiment: str, wait: bool
) -> None:
    run_id, url = cluster.submit(path, arguments, name, experiment)
    print(url)
    if wait and not _follow(cluster, run_id):
        raise typer.Exit(EXIT_FAILED)


def _follow(cluster: Cluster, run_id: str) -> bool:
    """A table of the stages that fills as they come to pass; whether the run ended well."""
    console = Console(stderr=True)
    shown: dict[str, str] = {}
    with Live(console=console, auto_refresh=False) as live:
        while True:
            state, tasks = cluster.look(run_id)
            if console.is_terminal:
                live.update(_table(state, tasks), refresh=True)
            else:
                for task in tasks:
                    if shown.get(task.name) != task.state:
                        shown[task.name] = task.state
                        console.print(f"{task.name}: {task.state.lower()}", highlight=False)
            if state in Cluster.ENDED:
                return state == "SUCCEEDED"
            time.sleep(FOLLOW_SECONDS)


def _table(state: str, tasks: Sequence[TaskState]) -> Table:
    table = Table("stage", "state", "seconds", title=f"run {state.lower()}")
    for task in tasks:
        table.add_row(task.name, task.state.lower(), "" if task.seconds is None else f"{task.seconds:.0f}")
    return table
