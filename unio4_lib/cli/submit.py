"""``unio4 submit``: the compiled pipeline on a Kubeflow cluster; and what ``unio4 sweep`` shares with it."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from unio4_lib.artifacts.store import open_store
from unio4_lib.cli.app import App
from unio4_lib.cli.errors import EXIT_FAILED
from unio4_lib.cli.options import (
    ExperimentOption,
    FileOption,
    FinetuneOption,
    MethodOption,
    NoReuseOption,
    PresetOption,
    RootOption,
    RunNameOption,
    SeedOption,
    SetOption,
    TrackingOption,
)
from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config, method_of
from unio4_lib.methods.method import Method
from unio4_lib.methods.registry import DEFAULT, find_method
from unio4_lib.runs.arguments import Asked
from unio4_lib.runs.claims import mounted
from unio4_lib.runs.cluster import Cluster, Patience, TaskState, Version
from unio4_lib.runs.needs import parameters_of
from unio4_lib.runs.spec import PipelineSpec, compiled
from unio4_lib.sources.grammar import parse_source
from unio4_lib.tracking.address import check_public

submit_app = App(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

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
RegisteredOption = Annotated[
    str | None, typer.Option("--registered", metavar="NAME", help="Run a pipeline that is registered there.")
]
ClaimOption = Annotated[
    list[str] | None,
    typer.Option("--claim", metavar="NAME:/PATH", help="Mount a volume claim for reading data; repeatable."),
]
NeedsOption = Annotated[
    list[str] | None,
    typer.Option("--needs", metavar="KEY=VALUE", help="cpu, memory, gpu, node or tolerate; repeatable."),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")]


@submit_app.command()
def submit(
    dataset: Annotated[str, typer.Option("--dataset", help="A source that the cluster can read.")],
    artifact_root: RootOption = None,
    method: MethodOption = None,
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
    registered: RegisteredOption = None,
    needs: NeedsOption = None,
    claims: ClaimOption = None,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    run_name: RunNameOption = None,
    no_reuse: NoReuseOption = False,
    wait: WaitOption = False,
) -> None:
    """Run the pipeline on a Kubeflow cluster; prints the address of the run."""
    check_shared(artifact_root, registered, tracking)
    settings = load_config(preset, config, overridden or (), dataset, seed, method)
    parse_source(settings.dataset)
    asked_for = parameters_of(needs or ())
    cluster = Cluster(endpoint, token, namespace, service_account)
    what, spec = chosen(cluster, pipeline, registered, role_of(method_of(settings)))
    asked = Asked(
        spec, settings, preset, artifact_root, tracking, experiment, finetune, not no_reuse, asked_for
    )
    name = run_name or stamped("unio4")
    with mounted(what, claims or ()) as package:
        run_id = cluster.submit(package, asked.of_run(name), name, experiment)
    print(cluster.page(run_id), flush=True)
    if wait:
        follow_to_good_end(cluster, run_id, spec, name)


def chosen(
    cluster: Cluster, pipeline: Path | None, registered: str | None, role: str = ""
) -> tuple[Path | Version, PipelineSpec]:
    """What is to be run: a file, or what is registered there; ``role`` tells it from others of the name."""
    if registered is not None:
        if pipeline is not None:
            raise InputError("--registered and --pipeline; expected one of them")
        version = cluster.registered("-".join(part for part in (registered, role) if part))
        return version, version.spec
    path = pipeline or compiled("unio4")
    if role:
        path = path.with_name(f"{role}.yaml")
    return path, PipelineSpec.load(path)


def role_of(method: Method) -> str:
    """Of the pipeline that runs a method, among those of one release."""
    return "" if method.pipeline == find_method(DEFAULT).pipeline else method.pipeline


def check_shared(artifact_root: str | None, registered: str | None, tracking: str | None) -> None:
    """Artifacts are kept where all nodes see them, secrets where nobody does; what is registered may know
    a place itself."""
    check_public(tracking)
    if artifact_root is None and registered is not None:
        return
    if artifact_root is None or "://" not in artifact_root:
        raise InputError(
            "--artifact-root: a cluster needs a place that all its nodes see; expected s3://bucket/prefix"
        )
    open_store(artifact_root)  # contacts nobody; a place that cannot be one is refused


def stamped(name: str) -> str:
    return f"{name}-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"


def follow_to_good_end(cluster: Cluster, run_id: str, spec: PipelineSpec, name: str) -> None:
    """Show how a run goes; where it does not end well, say why and fail."""
    state, tasks = _follow(cluster, run_id, spec.stages())
    if state == "SUCCEEDED":
        return
    reason = cluster.reason(run_id)
    failed = dict.fromkeys(task.stage for task in tasks if task.state == "FAILED")
    what = f": {reason}" if reason else f" at {', '.join(failed)}" if failed else ""
    print(f"error: run {name} has {state.lower()}{what}; see {cluster.page(run_id)}", file=sys.stderr)
    raise typer.Exit(EXIT_FAILED)


def _follow(cluster: Cluster, run_id: str, stages: Mapping[str, str]) -> tuple[str, list[TaskState]]:
    """A table of the stages that fills as they come to pass; what became of the run and of them."""
    console = Console(stderr=True)
    shown: dict[str, str] = {}
    patience = Patience()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            answer = patience.ask(lambda: cluster.look(run_id, stages))
            if answer is not None:
                state, tasks = answer
                if console.is_terminal:
                    live.update(_table(state, tasks), refresh=True)
                else:
                    for stage, stood, _ in _rows(tasks):
                        if shown.get(stage) != stood:
                            shown[stage] = stood
                            console.print(f"{stage}: {stood}", highlight=False, soft_wrap=True)
                if state in Cluster.ENDED:
                    return state, tasks
            patience.pause()


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
