"""The four scores of a run, and what its fine-tuning did, as numbers to speak about."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unio4_lib.report.record import RunRecord
from unio4_lib.report.summary import Data, Score
from unio4_lib.words import interval_factor

PHASES = {"data": "Data", "clones": "Clones", "offline": "Offline", "online": "Online"}
POLICY_OF = {"clones": "behavior", "offline": "offline", "online": "online"}
FEW_EPISODES = 10  # of a look, where a run does not say
EARLY_SHARE = 0.1  # of the online steps: where a drop after the switch is looked for


@dataclass(frozen=True)
class Phase:
    """The return of the dataset or of the policies of one phase."""

    key: str
    mean: float
    stderr: float | None
    normalized: float | None
    episodes: int
    members: list[float]
    sampled: tuple[float, float] | None  # mean and error with sampled actions

    @property
    def name(self) -> str:
        return PHASES[self.key]

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean over episodes."""
        return self.mean - self.reach, self.mean + self.reach

    @property
    def reach(self) -> float:
        """Half of the interval; 0 where no error is known."""
        return interval_factor(self.episodes) * self.stderr if self.stderr else 0.0


def phases(record: RunRecord) -> dict[str, Phase]:
    """Every phase that has a score, in their order."""
    found = {}
    for key in PHASES:
        about = _of_data(record.summary.dataset) if key == "data" else record.score(POLICY_OF[key])
        if (phase := _phase(key, about)) is not None:
            found[key] = phase
    return found


def start(record: RunRecord) -> Phase | None:
    """The policy that the delivered offline one began as, before any step; both act in the same way."""
    about, delivered = record.score("start"), record.score("offline")
    if about is None or about.sampled is None or delivered is None:
        return _phase("offline", about)
    alike = (about.acts, delivered.acts) != ("mean", "sampled")
    changed = {} if alike else about.sampled.model_dump(exclude_unset=True)
    return _phase("offline", about.model_copy(update=changed))


def steps_taken(record: RunRecord) -> tuple[int, int] | None:
    """How many candidates of the delivered policy's own track passed the gate, of how many."""
    gate = record.summary.gate
    if gate is None:
        return None
    own = [entry for entry in record.decisions if entry.member == gate.chosen_member]
    if own:
        return sum(entry.accepted for entry in own), len(own)
    return gate.accepted, gate.checks


def _of_data(data: Data) -> Score | None:
    """The data's mean return as if it were a policy's."""
    if data.mean_return is None:
        return None
    return Score(mean_return=data.mean_return, normalized=data.normalized, episodes=data.episodes or 0)


def _phase(key: str, about: Score | None) -> Phase | None:
    if about is None:
        return None
    other = about.sampled
    sampled = None if other is None or other.stderr is None else (other.mean_return, other.stderr)
    return Phase(
        key, about.mean_return, about.stderr, about.normalized, about.episodes, about.members, sampled
    )


@dataclass(frozen=True)
class Change:
    """From one mean to another."""

    ratio: float | None  # None where the first is not positive: a ratio would say nothing
    difference: float
    direction: int  # 1 up, -1 down, 0 within the error of both


def change(before: Phase, after: Phase) -> Change:
    """How the return moved; up or down only where the difference exceeds its 95% interval."""
    difference = after.mean - before.mean
    certain = abs(difference) > math.hypot(before.reach, after.reach)
    direction = (1 if difference > 0 else -1) if certain and difference != 0 else 0
    return Change(after.mean / before.mean if before.mean > 0 else None, difference, direction)


@dataclass(frozen=True)
class Dip:
    """A low of the online curve, against the look at the switch."""

    steps: int
    mean: float
    before: float
    ratio: float | None
    looks: int = 1  # among which this was the worst


def dip(record: RunRecord) -> Dip | None:
    """The dip of a run's online curve."""
    warm = record.setting("finetune.warmup_steps") or 0
    return find_dip(record.curve, record.setting("finetune.env_steps"), warm)


def find_dip(curve: Sequence[Sequence[float]], total: int | None, warm: int) -> Dip | None:
    """The worst evaluation in the first tenth of the online steps, but at least the first one.

    The tenth begins when the policy begins to move: while only V learns, nothing can fall.
    """
    moved = [row for row in curve[1:] if row[0] > warm]
    if not moved:
        return None
    border = max(warm + EARLY_SHARE * (total or curve[-1][0]), moved[0][0])
    return _fall(curve[0][1], [row for row in moved if row[0] <= border])


def lowest(record: RunRecord) -> Dip | None:
    """The worst evaluation of the whole curve."""
    return _fall(record.curve[0][1], record.curve[1:]) if len(record.curve) > 1 else None


def _fall(before: float, rows: Sequence[Sequence[float]]) -> Dip:
    steps, mean, _ = min(rows, key=lambda row: row[1])
    return Dip(int(steps), mean, before, mean / before if before > 0 else None, len(rows))


def normalization(record: RunRecord) -> tuple[float, float] | None:
    """(return at score 0, return at score 100), from any two scores that have both numbers."""
    known = [
        (phase.mean, phase.normalized) for phase in phases(record).values() if phase.normalized is not None
    ]
    if len(known) < 2:
        return None
    (low, low_score), (high, high_score) = min(known), max(known)
    if high <= low or high_score <= low_score:
        return None
    slope = (high - low) / (high_score - low_score)
    return low - slope * low_score, low + slope * (100.0 - low_score)


def interval_of(row: list[Any], record: RunRecord) -> tuple[float, float]:
    """95% interval of a point of the online curve."""
    reach = interval_factor(record.setting("finetune.evaluate_episodes") or FEW_EPISODES) * row[2]
    return row[1] - reach, row[1] + reach
