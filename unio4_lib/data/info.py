"""What is known about a dataset besides its rows."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DatasetInfo:
    """The environment, the action bounds, the origin and the scale of scores of a dataset."""

    env_id: str
    env_kwargs: dict[str, Any]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    source: str
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Plain floats, whatever numbers were given: the digest must not depend on their type.
        for name in ("action_low", "action_high"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))

    def normalized(self, episode_return: float) -> float | None:
        """100 · (R − min) / (max − min), or None without reference scores."""
        if self.ref_min_score is None or self.ref_max_score is None:
            return None
        return 100 * (episode_return - self.ref_min_score) / (self.ref_max_score - self.ref_min_score)
