"""Where a dataset comes from: one line of text, such as ``minari:mujoco/hopper/medium-v0``."""

from unio4_lib.data.minari_source import load_minari
from unio4_lib.data.transitions import Transitions


def load_transitions(text: str, *, download: bool = True) -> Transitions:
    """Load what a source names."""
    return load_minari(text.removeprefix("minari:"), download=download)
