"""Tiny runs: a dataset, and the command called in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_settings import SETTINGS

from unio4_lib.cli import commands as cli
from unio4_lib.sources.collect import collect
from unio4_lib.sources.collect_spec import CollectSpec
from unio4_lib.sources.grammar import load_transitions

ENVIRONMENT = "InvertedPendulum-v5"


def set_arguments(**changed: Any) -> list[str]:
    """``--set`` for everything that makes a run tiny; ``changed`` names settings with __ for the dot."""
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changed.items()}
    return [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def run_arguments(dataset: str, output: Path, **changed: Any) -> list[str]:
    """Arguments of ``unio4 run`` at tiny size, all of it in one process."""
    return [
        "run",
        "--runner",
        "inline",
        "--dataset",
        dataset,
        "--output",
        str(output),
        "--tracking",
        "none",
        *set_arguments(**changed),
    ]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``unio4`` in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def record(home: Path, steps: int = 600) -> str:
    """Record random actions with Minari's writer under ``home``; returns the source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(home))
        return f"minari:{collect(CollectSpec(ENVIRONMENT, level='random', steps=steps))}"


def saved_recording(folder: Path, steps: int = 600) -> str:
    """The same rows as a folder, which needs no variable of the environment to be found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        load_transitions(record(folder / "minari", steps)).save(folder / "data")
    return f"transitions:{folder / 'data'}"


def files_under(folder: Path) -> set[str]:
    place = folder.resolve()
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
