"""The page around the figures: one file that needs nothing else."""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from unio4_lib.report.markup import Markup, el

Draw = Callable[[float], Markup]
"""Width in pixels -> a picture of that width."""

HALF, FULL, NARROW = 460.0, 940.0, 340.0


def figure(title: Any, draw: Draw, note: Any = None, *, full: bool = False) -> Markup:
    """A picture with what it shows above and how to read it below.

    It is drawn twice, for screens and for phones: text that shrinks with its picture cannot be read.
    """
    pictures = [
        el("div", draw(FULL if full else HALF), class_="wide"),
        el("div", draw(NARROW), class_="narrow"),
    ]
    caption = el("p", note, class_="how") if note else None
    return el("figure", el("figcaption", title), pictures, caption, class_="full" if full else None)


def section(anchor: str, title: str, *content: Any) -> Markup:
    return el("section", el("h2", title), *content, id=anchor)


def grid(*figures: Any) -> Markup:
    """Figures side by side where there is room."""
    return el("div", *figures, class_="grid")


def quiet(text: str) -> Markup:
    """What stands where there is nothing to show."""
    return el("p", text, class_="quiet")


def table(head: list[str], rows: list[list[Any]], *, words_first: int = 1) -> Markup:
    """A table whose first columns are words and whose others are numbers."""

    def cells(kind: str, values: list[Any]) -> list[Markup]:
        return [
            el(kind, value, class_=None if index < words_first else "number")
            for index, value in enumerate(values)
        ]

    body = [el("tr", cells("td", row)) for row in rows]
    inner = el("table", el("thead", el("tr", cells("th", list(head)))), el("tbody", body))
    return el("div", inner, class_="scroll", tabindex="0", role="region", aria_label=", ".join(head))


def page(title: str, header: Markup, sections: list[tuple[str, str, Markup]]) -> str:
    """The whole document; sections are (anchor, short name for the contents, content)."""
    links = [el("a", name, href=f"#{anchor}") for anchor, name, _ in sections if name]
    style, script = _resource("page.css"), _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The browser itself refuses every request, and every script but this one.
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content="unio4"),
        el("link", rel="icon", href="data:,"),
        el("title", title),
        el("style", Markup(style)),
    ]
    nav = el("nav", links, aria_label="Contents")
    body = el("main", header, nav, [content for _, _, content in sections])
    document = el("html", el("head", head), el("body", body, el("script", Markup(script))), lang="en")
    return f"<!doctype html>\n{document}\n"


@cache
def _resource(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
