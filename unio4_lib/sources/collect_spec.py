"""What a ``collect:`` source asks for; shared by the grammar and the collector."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Level = Literal["random", "medium", "medium-replay", "expert", "medium-expert", "target", "policy"]
LEVELS: tuple[str, ...] = get_args(Level)
ASKED_BY_NAME = LEVELS[:-2]  # the others follow from target= and policy=


@dataclass(frozen=True)
class CollectSpec:
    """Which behavior to record, where and how much of it."""

    env_id: str
    level: Level = "medium"  # "target" exactly when target_return is set, "policy" when policy is
    target_return: float | None = None  # train until this mean return, then record
    steps: int = 100_000  # environment steps to record
    seed: int = 0
    train_steps: int | None = None  # most environment steps of training; None leaves it to the collector
    noise: float | None = None  # std of added Gaussian action noise; None leaves it to the collector
    policy: str | None = None  # folder of a policy, or of a run, whose policy acts
    env_kwargs: dict[str, Any] = field(default_factory=dict)
