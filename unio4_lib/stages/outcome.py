"""What becomes of a stage."""

from dataclasses import dataclass

from unio4_lib.artifacts.ref import ArtifactRef


@dataclass(frozen=True)
class StageOutcome:
    """What became of a stage. ``seconds`` is what it took now; ``metrics`` are worth showing."""

    ref: ArtifactRef
    seconds: float
    reused: bool
    resumed: bool
    peak_memory_bytes: int
    metrics: dict[str, float]
