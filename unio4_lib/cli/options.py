"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from unio4_lib.stages.switch import checked_choice

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="minari:ID, d4rl:FILE, transitions:FOLDER or collect:ENV?...")
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="One of those that `unio4 methods` lists (default: unio4).")
]
PresetOption = Annotated[str, typer.Option("--preset", help="quick, standard or paper.")]
FileOption = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
OutputOption = Annotated[Path, typer.Option("--output", help="Folder that holds the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, nothing else.")]
RootOption = Annotated[
    str | None,
    typer.Option("--artifact-root", help="Folder or s3://bucket/prefix of artifacts and checkpoints."),
]
NoReuseOption = Annotated[
    bool, typer.Option("--no-reuse", help="Compute what is finished again; what was interrupted goes on.")
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Local folder for copies (UNIO4_CACHE or ~/.cache/unio4).")
]
TrackingOption = Annotated[
    str | None,
    typer.Option("--tracking", help="MLflow: a URI, or none (MLFLOW_TRACKING_URI, or a file in the output)."),
]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="Experiment in MLflow.")]
RunNameOption = Annotated[str | None, typer.Option("--run-name", help="Name of the run in MLflow.")]
RegisterOption = Annotated[
    str | None, typer.Option("--register", metavar="NAME", help="Register the policy as this MLflow model.")
]
AliasOption = Annotated[
    str | None, typer.Option("--alias", help="Alias of the registered version, such as champion.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what memory, disk and time it takes; start nothing.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
RunnerOption = Annotated[
    str, typer.Option("--runner", help="Stages as processes (process), containers (docker) or inline.")
]
FinetuneOption = Annotated[
    str,
    typer.Option(
        "--finetune", callback=checked_choice, help="Go online always, only if improved offline, or never."
    ),
]
