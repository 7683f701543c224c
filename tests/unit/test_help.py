"""The help of all commands."""

from collections.abc import Iterator

import pytest
from tiny_runs import call
from typer import Typer
from typer.core import TyperGroup
from typer.main import get_command

from unio4_lib.cli import artifacts as cli_artifacts
from unio4_lib.cli import commands as cli
from unio4_lib.cli import dataset as cli_dataset


def every_command(app: Typer, before: str = "") -> Iterator[str]:
    """Names of commands; those that stand elsewhere are no more than a name to the others."""
    command = get_command(app)
    yield before.strip()
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield f"{before} {name}".strip()
            yield from (f"{name} {deeper}" for deeper in getattr(inner, "commands", ()))


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            *every_command(cli.app),
            *every_command(cli_dataset.app, "dataset"),
            *every_command(cli_artifacts.app, "artifacts"),
        }
    ),
)
def test_help_names_no_type_where_there_is_nothing_to_give(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, *command.split(), "--help")
    assert code == 0
    assert "--help" in out and not any(word in out for word in ("<bool>", "--install-completion", "[[", "{"))
