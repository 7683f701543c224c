"""Commands whose usage shows arguments by name alone: Typer's own puts those that must be given in braces."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """RUN for what must be given, [RUN] for what may be."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class App(typer.Typer):
    """As Typer's, with commands of that kind."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = PlainCommand, **settings: Any
    ) -> Callable[[Any], Any]:
        return super().command(name, cls=cls, **settings)
