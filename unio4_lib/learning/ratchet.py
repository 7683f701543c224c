"""A learner that falls goes back to its last good policy and takes smaller steps from there."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unio4_lib.sim.base import Array

CERTAINTY = 1.0  # standard errors by which a fall must exceed what is tolerated

# What is watched: evaluations of the mean action, and what the learner itself earns with sampled ones.
LOOK, SAMPLED = "look", "sampled"
LEVELS = ("first", "best", "good_levels")


@dataclass(frozen=True)
class Level:
    """Mean return of some episodes."""

    mean: float
    stderr: float

    @classmethod
    def of(cls, returns: Sequence[float] | Array) -> "Level":
        values = np.asarray(returns, np.float64)
        stderr = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return cls(float(values.mean()), float(stderr))

    def fell_from(self, best: "Level", tolerated: float) -> bool:
        """Whether this is less by more than the tolerated share, on top of what noise explains."""
        noise = CERTAINTY * math.hypot(self.stderr, best.stderr)
        return self.mean < best.mean - tolerated * abs(best.mean) - noise


class Ratchet:
    """Keeps the last good networks, and says when the learner has to go back to them.

    Two things are watched, each against its own best: looks, and the running mean of sampled returns. Every
    look that is no fall makes the present networks the good ones. After a fall both bests are those of the
    good networks again, and ``step`` is cut by ``step_after_fall``; each look that is a new best beyond noise
    takes one cut back.
    """

    def __init__(self, tolerated: float | None, step_after_fall: float) -> None:
        self.tolerated, self.step_after_fall = tolerated, step_after_fall
        self.step = 1.0  # share of the step size that may be used
        self.first: dict[str, Level] = {}
        self.lowest: dict[str, float] = {}
        self.best: dict[str, Level] = {}
        self.good: Any = None  # states of the networks
        self.good_levels: dict[str, Level] = {}
        self.falls: list[int] = []  # environment steps at which the learner went back

    def fell(self, what: str, level: Level) -> bool:
        """Compare with the best so far; what is better becomes the best."""
        self.first.setdefault(what, level)
        self.lowest[what] = min(level.mean, self.lowest.get(what, level.mean))
        best = self.best.get(what)
        if self.tolerated is not None and best is not None and level.fell_from(best, self.tolerated):
            return True
        if best is None or level.mean > best.mean:
            self.best[what] = level
            if best is not None and what == LOOK and best.fell_from(level, 0.0):
                self.step = min(1.0, self.step / self.step_after_fall)
        return False

    def worst(self, what: str) -> float | None:
        """The lowest that was seen as a share of the first; None where that is not positive."""
        return self.lowest[what] / self.first[what].mean if self.first[what].mean > 0 else None

    def keep(self, networks: Any) -> None:
        """These networks are good."""
        self.good, self.good_levels = networks, dict(self.best)

    def go_back(self, env_steps: int) -> Any:
        """The last good networks."""
        self.best = dict(self.good_levels)
        self.step *= self.step_after_fall
        self.falls.append(env_steps)
        return self.good

    def state_dict(self) -> dict[str, Any]:
        levels = [(name, getattr(self, name)) for name in LEVELS]
        return {
            "step": self.step,
            "lowest": dict(self.lowest),
            "good": self.good,
            "falls": list(self.falls),
            **{name: {what: asdict(level) for what, level in found.items()} for name, found in levels},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.good, self.falls = state["step"], state["good"], list(state["falls"])
        self.lowest = dict(state["lowest"])
        for name in LEVELS:
            setattr(self, name, {what: Level(**level) for what, level in state[name].items()})
