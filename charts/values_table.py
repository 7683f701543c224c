"""Write the table of values in the chart's README from the comments of values.yaml.

A line ``# -- meaning`` explains the key below it, as helm-docs has it. A key without one is an error.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "unio4"
BEGIN, END = "<!-- values: written by `make docs-chart` -->", "<!-- /values -->"
KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z0-9]+):")
COMMENT = re.compile(r"^ *# -- (?P<text>.+)$")


@dataclass(frozen=True)
class Value:
    """One key that can be set, with its default."""

    path: str
    meaning: str
    default: Any


def explained(text: str) -> dict[str, str]:
    """Meaning of each explained key, by its dotted path."""
    found: dict[str, str] = {}
    above: list[str] = []
    meaning = ""
    for line in text.splitlines():
        if comment := COMMENT.match(line):
            meaning = comment["text"]
        elif key := KEY.match(line):
            above = [*above[: len(key["indent"]) // 2], key["name"]]
            if meaning:
                found[".".join(above)] = meaning
            meaning = ""
    return found


def listed(values: dict[str, Any], meanings: dict[str, str], prefix: str = "") -> Iterator[Value]:
    """Every key, deepest first explained; what is explained is not taken apart."""
    for key, value in values.items():
        path = prefix + key
        if path in meanings:
            yield Value(path, meanings[path], value)
        elif isinstance(value, dict) and value:
            yield from listed(value, meanings, f"{path}.")
        else:
            raise ValueError(f"values.yaml: {path} has no comment; write `# -- meaning` above it")


def table(text: str) -> str:
    """The table in Markdown, one part for each section."""
    rows = list(listed(yaml.safe_load(text), explained(text)))
    lines = ["| Key | Default | Meaning |", "|---|---|---|"]
    for row in rows:
        cells = (f"`{row.path}`", f"`{json.dumps(row.default)}`", row.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def readme(old: str, values: str) -> str:
    """The README with the table of today between its marks."""
    head, rest = old.split(BEGIN)
    return f"{head}{BEGIN}\n{table(values)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    page = CHART / "README.md"
    page.write_text(readme(page.read_text(), (CHART / "values.yaml").read_text()))
