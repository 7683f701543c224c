"""``unio4 sweep``: datasets and seeds side by side, on this machine or on a Kubeflow cluster."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from unio4_lib.cli_console import on_termination, progress_console
from unio4_lib.cli_errors import EXIT_FAILED
from unio4_lib.cli_kfp import (
    AccountOption,
    ClaimOption,
    EndpointOption,
    NamespaceOption,
    NeedsOption,
    PipelineOption,
    RegisteredOption,
    TokenOption,
    WaitOption,
    check_shared,
    chosen,
    follow_to_good_end,
    stamped,
)
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
    SetOption,
    TrackingOption,
)
from unio4_lib.config_io import load_config
from unio4_lib.errors import InputError
from unio4_lib.pipeline.arguments import Asked
from unio4_lib.pipeline.claims import mounted
from unio4_lib.pipeline.cluster import Cluster
from unio4_lib.pipeline.cluster_sweep import ClusterSweep, stop_all, table_of
from unio4_lib.pipeline.local_run import Runner, artifact_place
from unio4_lib.pipeline.local_sweep import LocalSweep, run_sweep
from unio4_lib.pipeline.needs import parameters_of
from unio4_lib.pipeline.spec import PipelineSpec, Values, compiled
from unio4_lib.stages.context import default_cache
from unio4_lib.stages.sweep import Member
from unio4_lib.tracking.address import check_public

CLUSTER = "kfp"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a folder, and of a run of KFP
RUNNERS = (*get_args(Runner), CLUSTER)

sweep_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@sweep_app.command()
def sweep(
    datasets: Annotated[list[str], typer.Option("--dataset", help="A source; repeatable.")] = [],  # noqa: B006
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, such as 0-4 or 1,3,7.")] = "0-4",
    runner: Annotated[
        str, typer.Option("--runner", help="On this machine (process, docker) or a cluster (kfp).")
    ] = "process",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the sweep; the same one goes on.")
    ] = None,
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
    registered: RegisteredOption = None,
    needs: NeedsOption = None,
    claims: ClaimOption = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Members at a time (kfp).")] = 4,
    again: Annotated[bool, typer.Option("--again", help="Also members that are done (kfp).")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End all that is under way (kfp).")] = False,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    no_reuse: NoReuseOption = False,
    cache: CacheOption = None,
    wait: WaitOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run datasets and seeds side by side and compare them."""
    if name is not None and not NAME.fullmatch(name):
        raise InputError(f"--name {name}: expected letters, digits, '.', '_' and '-', such as hopper-5-seeds")
    cluster = Cluster(endpoint, token, namespace, service_account)
    if cancel:
        _cancel(cluster, runner, name, experiment)
        return
    members = _members(datasets, seeds, runner, name or stamped("sweep"))
    # Each member has its own dataset and seed; the first one shows whether the rest is right.
    settings = load_config(preset, config, overridden or (), members[0].dataset, members[0].seed)
    common = (experiment, finetune, not no_reuse, parameters_of(needs or ()))
    if runner == CLUSTER:
        check_shared(artifact_root, registered)
        check_public(tracking)
        what, spec = chosen(cluster, pipeline, registered)
        asked = Asked(spec, settings, preset, artifact_root, tracking, *common)
        with mounted(what, claims or ()) as package:
            said = _quiet if quiet else _say
            told = ClusterSweep(cluster, package, asked.of_member, experiment, parallel, said)
            told.run(members, again=again, to_the_end=wait)
        if wait:
            _compare(told, members, artifact_root, chosen(cluster, pipeline, registered, "leaderboard"))
        return
    spec = PipelineSpec.load(pipeline or compiled("sweep"))
    asked = Asked(spec, settings, preset, artifact_place(artifact_root, output), tracking, *common)
    arguments = asked.of_sweep(members[0].sweep, _entries(members))
    _run_here(spec, arguments, output, runner, cache, tracking, quiet)


def _run_here(
    spec: PipelineSpec,
    arguments: Values,
    output: Path,
    runner: str,
    cache: Path | None,
    tracking: str | None,
    quiet: bool,
) -> None:
    """The compiled sweep on this machine; prints where its table is."""
    here: Runner = "docker" if runner == "docker" else "process"
    told = LocalSweep(spec, arguments, output, here, (cache or default_cache()).absolute(), tracking)
    with on_termination() as preemption:
        print(run_sweep(told, None if quiet else progress_console(), preemption))


def _members(datasets: list[str], seeds: str, runner: str, name: str) -> list[Member]:
    """All runs of a sweep."""
    if runner not in RUNNERS:
        raise InputError(f"--runner {runner}: expected one of {', '.join(RUNNERS)}")
    if not datasets:
        raise InputError("no --dataset; expected at least one source")
    return [Member(name, dataset, seed) for dataset in dict.fromkeys(datasets) for seed in parse_seeds(seeds)]


def _entries(members: list[Member]) -> list[dict[str, Any]]:
    """Members as pipelines take them."""
    return [{"dataset": member.dataset, "seed": member.seed} for member in members]


def _compare(
    told: ClusterSweep, members: list[Member], artifact_root: str | None, board: tuple[Any, PipelineSpec]
) -> None:
    """The leaderboard, made on the cluster, on standard output; members that failed make the sweep fail."""
    what, spec = board
    name = f"{members[0].sweep} leaderboard"
    arguments = {"members": _entries(members), "sweep": members[0].sweep}
    if artifact_root is not None:
        arguments["artifact_root"] = artifact_root
    run_id = told.cluster.submit(what, arguments, name, told.experiment)
    _say(f"{name}: started; {told.cluster.page(run_id)}")
    follow_to_good_end(told.cluster, run_id, spec, name)
    print(table_of(told.cluster.logs(run_id, "SUCCEEDED")) or told.cluster.page(run_id))
    if told.failures:
        first, reason = next(iter(told.failures.items()))
        count = f"{len(told.failures)} of {len(members)} members"
        print(f"error: {count} did not succeed; the first: {first}: {reason}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED)


def _cancel(cluster: Cluster, runner: str, name: str | None, experiment: str) -> None:
    if runner != CLUSTER or name is None:
        raise InputError("--cancel: expected --runner kfp and the --name of a sweep")
    for stopped in stop_all(cluster, name, experiment):
        _say(f"{stopped}: canceled")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet(_line: str) -> None:
    """Nobody wants to hear of members one by one."""


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
