"""What is known of a dataset before its rows are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from unio4_lib.data.transitions import describe

NUMBER = 4  # bytes of a float32


@dataclass(frozen=True)
class Preview:
    """``rows`` is 0 where nobody knows yet."""

    env_id: str | None = None
    env_kwargs: dict[str, Any] | None = None
    rows: int = 0
    observation_dim: int = 0
    action_dim: int = 0
    env_steps: int | None = 0  # that recording it takes; None where it trains first, until it is good enough

    @classmethod
    def of_rows(cls, folder: Path) -> Self:
        """Of a saved folder, as the artifacts of data are."""
        rows, width, info = describe(folder)
        return cls(info.env_id, info.env_kwargs, rows, width, len(info.action_low))

    @property
    def bytes(self) -> int:
        """Of the prepared rows: s, a, r, s' and two marks."""
        return self.rows * (NUMBER * (2 * self.observation_dim + self.action_dim + 1) + 2)
