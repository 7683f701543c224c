"""``unio4 submit`` and ``unio4 sweep``: the compiled pipelines on a Kubeflow cluster, a sweep also here."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from unio4_lib.pipeline.arguments import Asked
from unio4_lib.pipeline.cluster import Cluster, ClusterAway, TaskState
from unio4_lib.pipeline.local_run import Runner, artifact_place
from unio4_lib.pipeline.local_sweep import LocalSweep, run_sweep
from unio4_lib.pipeline.spec import PipelineSpec, compiled
from unio4_lib.stages.context import default_cache

CLUSTER = "kfp"
FOLLOW_SECONDS = 5.0
PATIENCE_SECONDS = 300.0  # with a server that does not answer for a while; the run goes on without us

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
AccountOption = Annotated[
    str | None, typer.Option("--service-account", help="Kubernetes service account of the run's pods.")
]
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
    service_account: AccountOption = None,
    pipeline: PipelineOption = None,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    run_name: RunNameOption = None,
    no_reuse: NoReuseOption = False,
    wait: WaitOption = False,
) -> None:
    """Run the pipeline on a Kubeflow cluster; prints the address of the run."""
    _check_shared(artifact_root)
    settings = load_config(preset, config, overridden or (), dataset, seed)
    path, name = pipeline or compiled("unio4"), run_name or _stamped("unio4")
    spec = PipelineSpec.load(path)
    asked = Asked(spec, settings, preset, artifact_root, tracking, experiment, finetune, not no_reuse)
    cluster = Cluster(endpoint, token, namespace, service_account)
    _submit(cluster, path, spec, asked.of_run(name), name, experiment, wait)


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
    service_account: AccountOption = None,
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
    root = artifact_place(artifact_root, output)
    asked = Asked(spec, settings, preset, root, tracking, experiment, finetune, not no_reuse)
    arguments = asked.of_sweep(name, members)
    if runner == CLUSTER:
        cluster = Cluster(endpoint, token, namespace, service_account)
        _submit(cluster, path, spec, arguments, name, experiment, wait)
        return
    here: Runner = "docker" if runner == "docker" else "process"
    told = LocalSweep(spec, arguments, output, here, (cache or default_cache()).absolute())
    with on_termination() as preemption:
        page = run_sweep(told, None if quiet else progress_console(), preemption)
    print(page)


def _members(datasets: list[str], seeds: str, runner: str, artifact_root: str | None) -> list[dict[str, Any]]:
    """All runs of a sweep, if they can be run there."""
    if runner not in (*get_args(Runner), CLUSTER):
        raise InputError(f"--runner {runner}: expected one of {', '.join((*get_args(Runner), CLUSTER))}")
    if runner == CLUSTER:
        _check_shared(artifact_root)
    sources = dict.fromkeys(datasets)
    return [{"dataset": dataset, "seed": seed} for dataset in sources for seed in parse_seeds(seeds)]


def _check_shared(artifact_root: str | None) -> None:
    if artifact_root is None or "://" not in artifact_root:
        raise InputError(
            "--artifact-root: a cluster needs a place that all its nodes see; expected s3://bucket/prefix"
        )


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
    cluster: Cluster,
    path: Path,
    spec: PipelineSpec,
    arguments: dict[str, Any],
    name: str,
    experiment: str,
    wait: bool,
) -> None:
    """Start a run there and say where it is; follow it if that is wanted."""
    run_id = cluster.submit(path, arguments, name, experiment)
    print(cluster.page(run_id), flush=True)
    if not wait:
        return
    state, tasks = _follow(cluster, run_id, spec.stages())
    if state != "SUCCEEDED":
        failed = dict.fromkeys(task.stage for task in tasks if task.state == "FAILED")
        where = f" at {', '.join(failed)}" if failed else ""
        print(f"error: run {name} has {state.lower()}{where}; see {cluster.page(run_id)}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED)


def _follow(cluster: Cluster, run_id: str, stages: Mapping[str, str]) -> tuple[str, list[TaskState]]:
    """A table of the stages that fills as they come to pass; what became of the run and of them."""
    console = Console(stderr=True)
    shown: dict[str, str] = {}
    answered = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                state, tasks = cluster.look(run_id, stages)
                answered = time.monotonic()
            except ClusterAway:
                if time.monotonic() - answered > PATIENCE_SECONDS:
                    raise
            else:
                if console.is_terminal:
                    live.update(_table(state, tasks), refresh=True)
                else:
                    for stage, stood, _ in _rows(tasks):
                        if shown.get(stage) != stood:
                            shown[stage] = stood
                            console.print(f"{stage}: {stood}", highlight=False, soft_wrap=True)
                if state in Cluster.ENDED:
                    return state, tasks
            time.sleep(FOLLOW_SECONDS)


def _table(state: str, tasks: Sequence[TaskState]) -> Table:
    table = Table("stage", "state", "seconds", title=f"run {state.lower()}")
    for stage, stood, seconds in _rows(tasks):
        table.add_row(stage, stood, "" if seconds is None else f"{seconds:.0f}")
    return table


def _rows(tasks: Sequence[TaskState]) -> Iterator[tuple[str, str, float | None]]:
    """Each stage, how it stands and how long it took; of a sweep, how many members stand how."""
    for stage in dict.fromkeys(task.stage for task in tasks):
        group = [task for task in tasks if task.stage == stage]
        counts = Counter(task.state.lower() for task in group)
        stood = ", ".join(state if len(group) == 1 else f"{count} {state}" for state, count in counts.items())
        yield stage, stood, max((task.seconds for task in group if task.seconds is not None), default=None)
