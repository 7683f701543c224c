"""Offline-to-online reinforcement learning as a production pipeline."""

from typing import Any

__version__ = "0.1.0"

FRONT = ("load_dataset", "load_policy", "score", "train")


def __getattr__(name: str) -> Any:
    """``from unio4_lib import train``: what a notebook needs, imported when it is asked for."""
    if name in FRONT:
        from unio4_lib.runs import front

        return getattr(front, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
