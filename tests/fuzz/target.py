"""What a target of the fuzzer is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Target:
    """``attempt`` draws a case and uses it as the project would; it may write into the folder given."""

    name: str
    attempt: Callable[[Random, Path], object]
