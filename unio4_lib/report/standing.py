"""How the methods of a sweep stand to each other on one dataset, and which one to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unio4_lib import words
from unio4_lib.report.aggregate import area_under_curve, improvement_interval, probability_of_improvement
from unio4_lib.report.phases import dip
from unio4_lib.report.record import RunRecord

SURE, LIKELY = 0.95, 0.75  # probabilities of improvement from which a choice is called so
FEW_RUNS = 3  # of which nothing is said to be sure


@dataclass(frozen=True)
class Cost:
    """What runs of a method took on average, and how they came to their end."""

    dip: float | None  # the worst early look online over the one before the first step
    area: float | None  # mean return over the online steps
    seconds: float
    env_steps: float


def cost_of(records: Sequence[RunRecord]) -> Cost:
    """On average over runs, as far as they went online."""
    falls = [fall.ratio for record in records if (fall := dip(record)) is not None and fall.ratio is not None]
    curves = [np.asarray(record.curve, np.float64) for record in records if len(record.curve) > 1]
    areas = [area_under_curve(curve[:, 0], curve[:, 1]) for curve in curves]
    return Cost(
        float(np.mean(falls)) if falls else None,
        float(np.mean(areas)) if areas else None,
        float(np.mean([sum(stage.seconds for stage in record.stages.values()) for record in records])),
        float(np.mean([record.curve[-1][0] if record.curve else 0 for record in records])),
    )


def duels(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """A table: how probably a run of the row's method is better than one of the column's."""
    names = list(scores)
    lines = [f"| Better than | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for ours in names:
        cells = ["" if ours == theirs else _duel(scores[ours], scores[theirs]) for theirs in names]
        lines.append(f"| {ours} | {' | '.join(cells)} |")
    return lines


def _duel(ours: Sequence[float], theirs: Sequence[float]) -> str:
    text, between = f"{probability_of_improvement(ours, theirs):.0%}", improvement_interval(ours, theirs)
    return text if between is None else f"{text} ({between[0]:.0%} to {between[1]:.0%})"


def advice(scores: Mapping[str, Sequence[float]]) -> str:
    """Which method to take, and how sure that is."""
    order = sorted(scores, key=lambda name: -float(np.mean(scores[name])))
    first, others = order[0], order[1:]
    against = {name: probability_of_improvement(scores[first], scores[name]) for name in others}
    closest = min(against, key=lambda name: against[name])
    chance = against[closest]
    found = f"{first} has the highest mean, {words.number(float(np.mean(scores[first])))}"
    beats = f"a run of it is above one of {closest}, the closest, in {chance:.0%} of pairs"
    few = min(len(scores[first]), len(scores[closest]))
    if few < FEW_RUNS:
        return f"Take {first}, but it is a guess: {found}; {beats}, of {words.count(few)} runs or more each."
    if chance >= SURE:
        return f"Take {first}: {found}; {beats}."
    if chance >= LIKELY:
        return f"Take {first}, probably: {found}; {beats}. More seeds would tell."
    return f"No method stands out: {found}, but {beats}. Take the cheaper one, or run more seeds."
