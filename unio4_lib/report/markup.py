"""HTML and SVG from nested calls. Text is escaped unless it was made here: nothing is ever pasted in."""

import html
from typing import Any

VOID = frozenset({"br", "col", "img", "link", "meta"})  # elements that have no end


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def markup(value: Any) -> Markup:
    """Anything as HTML; plain text is escaped, None and nested lists of parts are taken apart."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("")
    if isinstance(value, list | tuple):
        return Markup("".join(markup(part) for part in value))
    return Markup(html.escape(str(value), quote=True))


def el(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. ``class_`` is class, ``aria_label`` aria-label; attributes that are None are left out."""
    parts = []
    for key, value in attributes.items():
        if value is not None:
            plain = _number(value) if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(plain), quote=True)}"')
    start = f"<{name}{''.join(parts)}>"
    return Markup(start if name in VOID else f"{start}{markup(children)}</{name}>")


def _number(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
