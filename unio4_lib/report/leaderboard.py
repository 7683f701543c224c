"""What a sweep comes to: one line for each dataset and each member, failed ones by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unio4_lib import words
from unio4_lib.report.aggregate import interquartile_mean, mean_interval, performance_profile
from unio4_lib.report.phases import PHASES, phases
from unio4_lib.report.record import RunRecord
from unio4_lib.report.standing import advice, cost_of, duels

PROFILE_SHARES = (0.5, 0.75, 1.0, 1.25)  # of the clones' return
SHOWN = ("clones", "offline", "online")


@dataclass(frozen=True)
class Entry:
    """One member: its record, or why there is none."""

    dataset: str
    seed: int
    method: str
    record: RunRecord | None = None
    failure: str = ""

    @property
    def group(self) -> tuple[str, str]:
        """What is compared with each other."""
        return self.dataset, self.method

    def final(self) -> float | None:
        """Return of the last policy."""
        if self.record is None:
            return None
        found = phases(self.record)
        last = found.get("online") or found.get("offline")
        return None if last is None else last.mean


def metrics(entries: Sequence[Entry]) -> dict[str, float]:
    """Of each dataset and method: mean, of several runs its interval, and interquartile mean; failures."""
    values: dict[str, float] = {
        "members": len(entries),
        "failed": sum(bool(entry.failure) for entry in entries),
    }
    for (dataset, method), scores in _groups(entries).items():
        name = f"{dataset}/{method}"
        values |= {
            f"{name}/mean": float(np.mean(scores)),
            f"{name}/interquartile_mean": float(interquartile_mean(scores)),
        }
        interval = mean_interval(scores)
        if interval is not None:
            values |= {f"{name}/interval_low": interval[0], f"{name}/interval_high": interval[1]}
    return values


def markdown(entries: Sequence[Entry]) -> str:
    """The leaderboard as text."""
    lines = [
        "| Dataset | Method | Runs | Mean | 95% interval of it, by t | Interquartile mean | Failed |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = _groups(entries)
    for group in dict.fromkeys(entry.group for entry in entries):
        failed = sum(bool(entry.failure) for entry in entries if entry.group == group)
        scores = groups.get(group)
        figures = "– | – | –"
        if scores:
            interval = mean_interval(scores)
            shown = "–" if interval is None else "{:.1f} to {:.1f}".format(*interval)
            figures = f"{np.mean(scores):.1f} | {shown} | {interquartile_mean(scores):.1f}"
        lines.append(f"| {_cell(group[0])} | {group[1]} | {len(scores or [])} | {figures} | {failed} |")
    lines += _costs(entries) + _standings(groups)
    names = " | ".join(PHASES[key] for key in SHOWN)
    lines += ["", f"| Dataset | Method | Seed | {names} |", "|---|---|---|---|---|---|"]
    for entry in sorted(entries, key=_rank):
        lines.append(f"| {_cell(entry.dataset)} | {entry.method} | {entry.seed} | {_scores(entry)} |")
    lines += _profile(entries)
    return "\n".join(lines) + "\n"


def _costs(entries: Sequence[Entry]) -> list[str]:
    """What each method took, and how it went online."""
    lines = [
        "",
        "| Dataset | Method | Dip | Mean return online | Environment steps | Seconds of stages |",
        "|---|---|---|---|---|---|",
    ]
    for group in dict.fromkeys(entry.group for entry in entries):
        records = [one.record for one in entries if one.group == group and one.record is not None]
        if records:
            cost = cost_of(records)
            cells = [words.ratio(cost.dip), words.number(cost.area), words.number(cost.env_steps)]
            cells.append(f"{cost.seconds:.0f}")
            lines.append(f"| {_cell(group[0])} | {group[1]} | {' | '.join(cells)} |")
    return lines


def _standings(groups: Mapping[tuple[str, str], Sequence[float]]) -> list[str]:
    """Of each dataset with several methods: how they stand to each other, and which one to take."""
    lines: list[str] = []
    for dataset in dict.fromkeys(dataset for dataset, _ in groups):
        scores = {method: found for (name, method), found in groups.items() if name == dataset}
        if len(scores) > 1:
            lines += ["", f"{_cell(dataset)}: {advice(scores)}", "", *duels(scores)]
    return lines


def _rank(entry: Entry) -> float:
    final = entry.final()
    return np.inf if final is None else -final


def _groups(entries: Sequence[Entry]) -> dict[tuple[str, str], list[float]]:
    """Returns of the last policies by dataset and method."""
    found: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        score = entry.final()
        if score is not None:
            found.setdefault(entry.group, []).append(score)
    return found


def _scores(entry: Entry) -> str:
    if entry.record is None:
        return f"failed: {_cell(entry.failure)} | – | –"
    found = phases(entry.record)
    shown = (found.get(name) for name in SHOWN)
    return " | ".join("–" if phase is None else f"{phase.mean:.1f} ± {phase.stderr:.1f}" for phase in shown)


def _profile(entries: Sequence[Entry]) -> list[str]:
    """Share of runs whose last policy reaches so much of what the data's clones reach."""
    ratios = []
    for entry in entries:
        final = entry.final()
        clones = phases(entry.record).get("clones") if entry.record is not None else None
        if final is not None and clones is not None and clones.mean > 0:
            ratios.append(final / clones.mean)
    if not ratios:
        return []
    shares = performance_profile(ratios, PROFILE_SHARES)
    parts = [f"{share:.0%} above {level:g}×" for level, share in zip(PROFILE_SHARES, shares, strict=True)]
    return ["", f"Of {len(ratios)} runs, by last return over the clones' return: {', '.join(parts)}."]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
