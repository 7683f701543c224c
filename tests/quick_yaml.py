"""YAML read by libyaml where it is there: compiled pipelines are long, and Python needs ten times as long."""

from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str | bytes) -> list[Any]:
    """All documents of a text."""
    return list(yaml.load_all(text, LOADER))
