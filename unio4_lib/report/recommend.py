"""Which method to take: by the runs of a sweep, and for data that has no runs by what it is like."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unio4_lib import words
from unio4_lib.errors import InputError
from unio4_lib.report.aggregate import FEWEST_RUNS, RESAMPLES
from unio4_lib.report.facts import DatasetFacts
from unio4_lib.report.standing import FEW_RUNS, LIKELY, SURE

LEAST = 1e-9
Scores = Mapping[str, Mapping[str, Sequence[float]]]  # of runs, by dataset and method
Chances = dict[tuple[str, str], NDArray[np.float64]]  # [resamples] that one method is above another


@dataclass(frozen=True)
class Features:
    """What a dataset is like: its size, its quality and what of the actions it covers."""

    transitions: int
    episodes: int
    quality: float  # where the mean episode stands between the worst one (0) and the best (1)
    normalized: float | None  # mean score, where references are known
    coverage: float  # share of the action box that is in use, by dimension


@dataclass(frozen=True)
class Choice:
    """A method, and how sure it is that it is the right one."""

    method: str
    closest: str  # of the others, whose runs come nearest
    chance: float  # that a run of the method is above one of the closest
    interval: tuple[float, float] | None  # of that chance; none of few runs
    kept: float  # share of resamples of the runs that lead to the same method
    runs: int  # of a method and dataset, the fewest
    datasets: int


def features(facts: DatasetFacts) -> Features:
    """From what the report keeps of a dataset."""
    if facts.returns is None:
        raise InputError(f"dataset {facts.id}: a run of it kept no returns of its data; run it again")
    low, high = facts.returns.quantiles.least, facts.returns.quantiles.most
    counts = [np.asarray(column.counts, np.float64) for column in facts.actions]
    return Features(
        facts.transitions,
        facts.episodes or 0,
        (facts.returns.mean - low) / max(high - low, LEAST) if high > low else 1.0,
        facts.normalized,
        float(np.mean([_in_use(column) for column in counts])) if counts else 0.0,
    )


def _in_use(counts: NDArray[np.float64]) -> float:
    """Share of bins that are filled, those that are filled less counted in part: by entropy."""
    shares = counts[counts > 0] / max(counts.sum(), LEAST)
    return float(np.exp(-(shares * np.log(shares)).sum()) / len(counts))


def describe(found: Features) -> str:
    """In words."""
    score = "" if found.normalized is None else f", a normalized score of {words.number(found.normalized)}"
    return (
        f"{words.count(found.transitions)} rows of {words.count(found.episodes)} episodes; the mean episode "
        f"stands at {words.percent(found.quality)} between the worst and the best{score}; "
        f"{words.percent(found.coverage)} of each action's range is in use"
    )


def distance(one: Features, other: Features) -> float:
    """How unlike two datasets are: a factor of ten in rows counts like all of the quality or coverage."""
    apart = [
        math.log10(one.transitions / other.transitions),
        one.quality - other.quality,
        one.coverage - other.coverage,
    ]
    if one.normalized is not None and other.normalized is not None:
        apart.append((one.normalized - other.normalized) / 100.0)
    return math.hypot(*apart)


def nearness(wanted: Features, known: Mapping[str, Features]) -> dict[str, float]:
    """What the runs on each known dataset count for another one."""
    return {name: math.exp(-distance(wanted, found)) for name, found in known.items()}


def choose(scores: Scores, weights: Mapping[str, float], *, seed: int = 0) -> Choice | None:
    """The method that is most often above the others, datasets counted by weight; None of fewer than two.

    Only methods with runs on each dataset can be compared. Runs are resampled within dataset and method.
    """
    names = [name for name in next(iter(scores.values())) if all(name in found for found in scores.values())]
    if len(names) < 2:
        return None
    generator = np.random.default_rng(seed)
    found, again = _chances(scores, weights, names, None), _chances(scores, weights, names, generator)
    pick = names[int(_standing(found, names).argmax(axis=0)[0])]
    closest = min((name for name in names if name != pick), key=lambda name: found[pick, name][0])
    runs = min(len(found[name]) for found in scores.values() for name in names)
    low, high = np.quantile(again[pick, closest], [0.025, 0.975])
    return Choice(
        pick,
        closest,
        float(found[pick, closest][0]),
        (float(low), float(high)) if runs >= FEWEST_RUNS else None,
        float(np.mean(_standing(again, names).argmax(axis=0) == names.index(pick))),
        runs,
        len(scores),
    )


def _standing(chances: Chances, names: Sequence[str]) -> NDArray[np.float64]:
    """Of each method the mean chance against the others [methods, resamples]."""
    return np.stack(
        [np.mean([chances[ours, name] for name in names if name != ours], axis=0) for ours in names]
    )


def _chances(
    scores: Scores, weights: Mapping[str, float], names: Sequence[str], generator: np.random.Generator | None
) -> Chances:
    """Of each pair of methods, of the runs as they are or of resamples of them."""
    total, parts = sum(weights[name] for name in scores), dict[tuple[str, str], Any]()
    for dataset, methods in scores.items():
        drawn = {name: _drawn(methods[name], generator) for name in names}
        for ours, theirs in permutations(names, 2):
            left, right = drawn[ours][:, :, None], drawn[theirs][:, None, :]
            above = np.mean((left > right) + 0.5 * (left == right), axis=(1, 2))
            parts[ours, theirs] = parts.get((ours, theirs), 0.0) + weights[dataset] / total * above
    return parts


def _drawn(runs: Sequence[float], generator: np.random.Generator | None) -> NDArray[np.float64]:
    values = np.asarray(runs, np.float64)
    if generator is None:
        return values[None]
    return values[generator.integers(len(values), size=(RESAMPLES, len(values)))]


def sentence(found: Choice) -> str:
    """Which method to take, and how sure that is."""
    between = (
        "" if found.interval is None else " ({:.0%} to {:.0%} with 95% confidence)".format(*found.interval)
    )
    over = "" if found.datasets == 1 else f", over {words.count(found.datasets)} datasets,"
    why = (
        f"a run of it{over} is above one of {found.closest}, the closest, in {found.chance:.0%} of pairs"
        f"{between}; {found.kept:.0%} of {words.count(RESAMPLES)} resamples of the runs lead to it"
    )
    if found.runs < FEW_RUNS:
        runs = "one run" if found.runs == 1 else f"{words.count(found.runs)} runs"
        return f"Take {found.method}, but it is a guess from as few as {runs} each: {why}."
    if min(found.chance, found.kept) >= SURE:
        return f"Take {found.method}: {why}."
    if found.chance >= LIKELY:
        return f"Take {found.method}, probably: {why}. More seeds would tell."
    rest = "Take the cheaper one, or run more seeds."
    return f"No method stands out. {found.method} comes first, but {why}. {rest}"
