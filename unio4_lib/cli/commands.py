"""The ``unio4`` command.

Only this module (and its neighbors ``cli_*``) prints and exits: the library raises. Heavy imports stand
inside the commands, so that ``unio4 --help`` is there at once.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unio4_lib import __version__
from unio4_lib.cli import tracking as cli_tracking
from unio4_lib.cli.app import App
from unio4_lib.cli.console import on_termination, progress_console, results_only, warn
from unio4_lib.cli.errors import (
    DEBUG_VARIABLE,
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TRY_AGAIN,
    explain,
)
from unio4_lib.cli.options import (
    AliasOption,
    CacheOption,
    DatasetOption,
    DryRunOption,
    ExperimentOption,
    FileOption,
    FinetuneOption,
    JsonOption,
    MethodOption,
    NoReuseOption,
    OutputOption,
    PresetOption,
    QuietOption,
    RegisterOption,
    RootOption,
    RunNameOption,
    RunnerOption,
    SeedOption,
    SetOption,
    TrackingOption,
)
from unio4_lib.errors import DatasetNotSet, InputError

if TYPE_CHECKING:
    from unio4_lib.settings.layers import Resolved


app = App(
    help="Offline-to-online reinforcement learning, from a dataset to a fine-tuned policy.",
    add_completion=False,
    rich_markup_mode=None,  # its tables say <bool> where there is nothing to give
    pretty_exceptions_enable=False,
)
ANY_DATASET = "minari:DATASET"  # in settings that are shown before there is one
config_app = App(help="Show settings, their schema and their reference page.")
app.add_typer(config_app, name="config")
app.add_typer(cli_tracking.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"unio4 {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error happened.")] = False,
) -> None:
    # main() takes --debug away wherever it stands; the option is here to be seen in the help.
    pass


def _elsewhere(name: str, place: str, about: str, *, bare: bool = False) -> None:
    """Add a command that stands elsewhere: mounting it would import what it needs for every other one.

    Without any words it shows its help, unless ``bare`` says that it needs none.
    """

    def command(context: typer.Context) -> None:
        module, _, constant = place.partition(":")
        commands = getattr(import_module(f"unio4_lib.cli.{module}"), constant)
        words = context.args or ([] if bare else ["--help"])
        raise typer.Exit(commands(args=words, prog_name=f"unio4 {name}", standalone_mode=False) or 0)

    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=about, add_help_option=False, context_settings=settings)(command)


@app.command("run")
def run_command(
    dataset: DatasetOption = None,
    method: MethodOption = None,
    preset: PresetOption = "quick",
    config: FileOption = None,
    overrides: SetOption = None,
    seed: SeedOption = None,
    output: OutputOption = Path("runs"),
    artifact_root: RootOption = None,
    no_reuse: NoReuseOption = False,
    cache: CacheOption = None,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    run_name: RunNameOption = None,
    register: RegisterOption = None,
    alias: AliasOption = None,
    runner: RunnerOption = "process",
    finetune: FinetuneOption = "always",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the whole method: from a dataset to a fine-tuned policy."""
    resolved = resolve(dataset, method, preset, config, overrides, seed)
    from unio4_lib.cli.run import check_runner, run_method
    from unio4_lib.runs.preflight import check_places
    from unio4_lib.tracking.address import default_uri
    from unio4_lib.tracking.tracker import Tracking

    check_runner(runner)
    check_places(resolved.config.dataset, artifact_root, tracking)
    if dry_run:
        from unio4_lib.cli.dry_run import show_estimate

        show_estimate(resolved.config, output, artifact_root, reuse=not no_reuse, as_json=as_json)
        return
    with on_termination() as preemption, results_only():
        summary = run_method(
            resolved.config,
            preset,
            output,
            runner=runner,
            finetune=finetune,
            artifact_root=artifact_root,
            reuse=not no_reuse,
            cache=cache,
            tracking=Tracking(tracking or default_uri(output), experiment, run_name, register, alias),
            preemption=preemption,
            console=None if quiet else progress_console(),
        )
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        from unio4_lib.cli.summary import print_summary

        print_summary(summary, resolved.config, output)


@app.command("evaluate")
def evaluate_command(
    place: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, a policy, or an artifact (folder, URI, reference).")
    ],
    episodes: Annotated[
        int, typer.Option("--episodes", min=2, max=1_000_000, help="Number of episodes.")
    ] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the episodes.")] = 1_000_003,
    sampled: Annotated[
        bool | None,
        typer.Option(
            "--sampled/--mean", help="Sample actions or take the mean; default: as it was delivered."
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a policy in its environment."""
    if "://" not in place and not Path(place).exists():
        raise InputError(f"{place}: no such folder; expected a run such as runs/latest, or a policy")
    from unio4_lib.runs.score_policy import evaluate_policy

    console = None if quiet else progress_console()
    with results_only():
        scores = evaluate_policy(
            place, episodes=episodes, seed=seed, sampled=sampled, console=console, warn=warn
        )
    if as_json:
        print(json.dumps(scores, indent=2))
    else:
        from unio4_lib.cli.summary import print_scores

        print_scores(scores)


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs: runs/latest.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="The file (report.html in the run, or comparison.html here)."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    video: Annotated[bool, typer.Option("--video", help="Film the policies of the run, too.")] = False,
    frames: Annotated[int, typer.Option("--frames", min=2, max=600, help="Pictures of the film.")] = 60,
    size: Annotated[int, typer.Option("--size", min=64, max=640, help="Pixels of each picture.")] = 160,
) -> None:
    """Write the report of a run, or the comparison of several."""
    from unio4_lib.cli.report import make_report

    make_report(runs, output, show=show, video=video, frames=frames, size=size)


_elsewhere("dataset", "dataset:app", "List, inspect and collect datasets.")
_elsewhere("bench", "bench:app", "Time every loop beside what this machine could do at most.", bare=True)


@app.command("stage")
def stage_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A stage, such as prepare-dataset.")],
    artifact_root: Annotated[
        str, typer.Option("--artifact-root", help="Folder or s3://bucket/prefix of artifacts.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="KIND=FILE", help="Reference to an input; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the reference to the artifact is written.")
    ] = None,
    dataset: DatasetOption = None,
    method: MethodOption = None,
    preset: PresetOption = "quick",
    config: FileOption = None,
    overrides: SetOption = None,
    seed: SeedOption = None,
    no_reuse: NoReuseOption = False,
    cache: CacheOption = None,
    tracking: TrackingOption = None,
    experiment: ExperimentOption = "unio4",
    run_name: RunNameOption = None,
    run_key: Annotated[
        str | None, typer.Option("--run-key", help="What stages of one run have in common in MLflow.")
    ] = None,
    register: RegisterOption = None,
    alias: AliasOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run one stage alone, from references to a reference."""
    resolved = resolve(dataset, method, preset, config, overrides, seed)
    from unio4_lib.cli.stage import run_one_stage
    from unio4_lib.tracking.address import default_uri
    from unio4_lib.tracking.tracker import Tracking

    with on_termination() as preemption, results_only():
        outcome = run_one_stage(
            name,
            resolved.config,
            inputs or [],
            output,
            artifact_root=artifact_root,
            reuse=not no_reuse,
            cache=cache,
            preemption=preemption,
            tracking=Tracking(tracking or default_uri(None), experiment, run_name, register, alias),
            run_key=run_key,
            console=None if quiet else progress_console(),
        )
    print(json.dumps(outcome, indent=2) if as_json else outcome["ref"]["uri"])


_elsewhere("artifacts", "artifacts:app", "List, show, verify and collect artifacts.")
_elsewhere("submit", "submit:submit_app", "Run the pipeline on a Kubeflow cluster.")
_elsewhere(
    "sweep", "sweep:sweep_app", "Run datasets and seeds side by side, here or on a cluster, and compare them."
)
_elsewhere("recommend", "recommend:recommend_app", "Say which method to take, by a finished sweep.")


@app.command("methods")
def methods_command() -> None:
    """List the methods."""
    from unio4_lib.methods.registry import METHODS, find_method

    for name in METHODS:
        print(f"{name:10} {find_method(name).about}")


@config_app.command("show")
def config_show(
    dataset: DatasetOption = None,
    method: MethodOption = None,
    preset: PresetOption = "quick",
    config: FileOption = None,
    overrides: SetOption = None,
    seed: SeedOption = None,
    origins: Annotated[bool, typer.Option("--origins", help="Say where each value came from.")] = False,
) -> None:
    """Print the settings of a run as YAML that --config reads."""
    try:
        resolved = resolve(dataset, method, preset, config, overrides, seed)
    except DatasetNotSet:
        print(f"note: no dataset is named; {ANY_DATASET} stands for it", file=sys.stderr)
        resolved = resolve(ANY_DATASET, method, preset, config, overrides, seed)
    from unio4_lib.settings.pages import config_yaml

    print(config_yaml(resolved.config, resolved.origins if origins else None), end="")


@config_app.command("schema")
def config_schema(method: MethodOption = None) -> None:
    """Print the JSON schema of the settings."""
    from unio4_lib.methods.registry import DEFAULT, find_method

    print(json.dumps(find_method(method or DEFAULT).settings.model_json_schema(), indent=2))


@config_app.command("docs")
def config_docs() -> None:
    """Print the reference page of all settings (docs/config.md)."""
    from unio4_lib.methods.configs import settings_page

    print(settings_page(), end="")


@app.command("doctor")
def doctor_command(output: OutputOption = Path("runs")) -> None:
    """Check this machine: one line for each thing that is needed or set up."""
    from unio4_lib.runs.doctor import examine

    findings = examine(output, os.environ)
    for finding in findings:
        print(finding.line())
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def resolve(
    dataset: str | None,
    method: str | None,
    preset: str,
    config: Path | None,
    overrides: list[str] | None,
    seed: int | None,
) -> "Resolved":
    from unio4_lib.methods.configs import resolve_config

    resolved = resolve_config(preset, config, overrides or (), dataset, seed, method)
    for note in resolved.notes:
        print(f"note: {note}", file=sys.stderr)
    return resolved


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: whatever happens, one line and an exit code that means something."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(args=arguments or ["--help"], prog_name="unio4", standalone_mode=False) or 0
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, code = explain(error)
        clear = debug or code in (EXIT_BAD_INPUT, EXIT_TRY_AGAIN)
        hint = "" if clear else f" ({DEBUG_VARIABLE}=1 or --debug shows where)"
        print(f"error: {text}{hint}", file=sys.stderr)
    if code == EXIT_INTERRUPTED:
        print("error: interrupted", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
