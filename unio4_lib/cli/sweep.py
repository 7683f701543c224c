"""``unio4 sweep``: datasets and seeds side by side, on this machine or on a Kubeflow cluster."""

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from unio4_lib.cli.app import App
from unio4_lib.cli.console import on_termination, progress_console
from unio4_lib.cli.errors import EXIT_FAILED
from unio4_lib.cli.options import (
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
from unio4_lib.cli.submit import (
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
    role_of,
    stamped,
)
from unio4_lib.errors import InputError
from unio4_lib.methods.configs import load_config
from unio4_lib.methods.registry import DEFAULT, find_method
from unio4_lib.runs import preflight
from unio4_lib.runs.arguments import Asked
from unio4_lib.runs.claims import mounted
from unio4_lib.runs.cluster import Cluster, Version
from unio4_lib.runs.cluster_sweep import ClusterSweep, stop_all, table_of
from unio4_lib.runs.local_run import Runner, artifact_place
from unio4_lib.runs.local_sweep import LocalSweep, run_sweep
from unio4_lib.runs.needs import parameters_of
from unio4_lib.runs.spec import PipelineSpec, Values
from unio4_lib.settings.model import RunConfig
from unio4_lib.sources.grammar import parse_source
from unio4_lib.stages.context import default_cache
from unio4_lib.stages.sweep import Member

CLUSTER = "kfp"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a folder, and of a run of KFP
RUNNERS = (*get_args(Runner), CLUSTER)

sweep_app = App(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _checked(name: str | None) -> str | None:
    """A name that can be one of a folder."""
    if name is not None and not NAME.fullmatch(name):
        raise InputError(f"--name {name}: expected letters, digits, '.', '_' and '-', such as hopper-5-seeds")
    return name


@sweep_app.command()
def sweep(
    datasets: Annotated[list[str], typer.Option("--dataset", help="A source; repeatable.")] = [],  # noqa: B006
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, such as 0-4 or 1,3,7.")] = "0-4",
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="One of `unio4 methods`; repeatable.")
    ] = None,
    runner: Annotated[
        str, typer.Option("--runner", help="On this machine (process, docker) or a cluster (kfp).")
    ] = "process",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the sweep; the same one goes on.", callback=_checked)
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
    cluster = Cluster(endpoint, token, namespace, service_account)
    if cancel:
        _cancel(cluster, runner, name, experiment)
        return
    members = _members(datasets, seeds, methods or [DEFAULT], runner, name or stamped("sweep"))
    # Each member has its own dataset and seed; the first one shows whether the rest is right.
    settings = [
        load_config(preset, config, overridden or (), members[0].dataset, members[0].seed, method)
        for method in dict.fromkeys(member.method for member in members)
    ]
    if runner == CLUSTER:
        check_shared(artifact_root, registered, tracking)
    else:
        artifact_root, registered = artifact_place(artifact_root, output), None
    pick = partial(chosen, cluster, pipeline, registered)
    options = (artifact_root, tracking, experiment, finetune, not no_reuse, parameters_of(needs or ()))
    plan = _Plan.of(members, settings, preset, options, pick)
    if runner == CLUSTER:
        going = plan.there(cluster, claims or (), experiment, parallel, again, wait, quiet)
        if wait:
            _compare(going, plan.board, pick("leaderboard"))
    else:
        plan.here(output, runner, cache or default_cache(), tracking, quiet)


@dataclass(frozen=True)
class _Plan:
    """The members, and for each method the pipeline that runs it and what it is told."""

    members: list[Member]
    pipelines: dict[str, tuple[Path | Version, PipelineSpec]]
    asked: dict[str, Asked]
    board: dict[str, Any]  # what the leaderboard is told

    @classmethod
    def of(
        cls,
        members: list[Member],
        settings: Sequence[RunConfig],
        preset: str,
        options: tuple[Any, ...],
        pick: Callable[[str], tuple[Path | Version, PipelineSpec]],
    ) -> "_Plan":
        for one in members:
            parse_source(one.dataset)
        pipelines = {one.method: pick(role_of(find_method(one.method))) for one in settings}
        asked = {one.method: Asked(pipelines[one.method][1], one, preset, *options) for one in settings}
        entries = [{"dataset": one.dataset, "seed": one.seed, "method": one.method} for one in members]
        board = {"members": entries, "sweep": members[0].sweep, "artifact_root": options[0]}
        return cls(members, pipelines, asked, board)

    def arguments(self, member: Member) -> Values:
        """The parameters of a member's run."""
        return self.asked[member.method].of_member(member)

    def here(self, output: Path, runner: str, cache: Path, tracking: str | None, quiet: bool) -> None:
        """The members on this machine; prints where their table is."""
        for dataset in dict.fromkeys(one.dataset for one in self.members):
            preflight.check_places(dataset, self.board["artifact_root"], tracking)
        specs = {name: spec for name, (_, spec) in self.pipelines.items()}
        local: Runner = "docker" if runner == "docker" else "process"
        place = cache.absolute()
        told = LocalSweep(self.members, specs, self.arguments, self.board, output, local, place, tracking)
        with on_termination() as preemption:
            print(run_sweep(told, None if quiet else progress_console(), preemption))

    def there(
        self,
        cluster: Cluster,
        claims: Sequence[str],
        experiment: str,
        parallel: int,
        again: bool,
        wait: bool,
        quiet: bool,
    ) -> ClusterSweep:
        """The members on a cluster, to the end where that is waited for."""
        with ExitStack() as stack:
            packages = {
                name: stack.enter_context(mounted(what, claims)) for name, (what, _) in self.pipelines.items()
            }
            said = _quiet if quiet else _say
            told = ClusterSweep(cluster, packages, self.arguments, experiment, parallel, said)
            told.run(self.members, again=again, to_the_end=wait)
        return told


def _members(datasets: list[str], seeds: str, methods: list[str], runner: str, name: str) -> list[Member]:
    """All runs of a sweep."""
    if runner not in RUNNERS:
        raise InputError(f"--runner {runner}: expected one of {', '.join(RUNNERS)}")
    if not datasets:
        raise InputError("no --dataset; expected at least one source")
    return [
        Member(name, dataset, seed, find_method(method).name)
        for dataset in dict.fromkeys(datasets)
        for method in dict.fromkeys(methods)
        for seed in parse_seeds(seeds)
    ]


def _compare(told: ClusterSweep, arguments: dict[str, Any], board: tuple[Any, PipelineSpec]) -> None:
    """The leaderboard, made on the cluster, on standard output; members that failed make the sweep fail."""
    what, spec = board
    name = f"{arguments['sweep']} leaderboard"
    arguments = {key: value for key, value in arguments.items() if value is not None}
    run_id = told.cluster.submit(what, arguments, name, told.experiment)
    _say(f"{name}: started; {told.cluster.page(run_id)}")
    follow_to_good_end(told.cluster, run_id, spec, name)
    print(table_of(told.cluster.logs(run_id, "SUCCEEDED")) or told.cluster.page(run_id))
    if told.failures:
        first, reason = next(iter(told.failures.items()))
        count = f"{len(told.failures)} of {len(arguments['members'])} members"
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
