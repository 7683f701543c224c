"""What a sweep comes to: one line for each dataset and each member, failed ones by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unio4_lib.report.aggregate import interquartile_mean, mean_interval, performance_profile
from unio4_lib.report.phases import PHASES, phases
from unio4_lib.report.record import RunRecord

PROFILE_SHARES = (0.5, 0.75, 1.0, 1.25)  # of the clones' return
SHOWN = ("clones", "offline", "online")


@dataclass(frozen=True)
class Entry:
    """One member: its record, or why there is none."""

    dataset: str
    seed: int
    record: RunRecord | None = None
    failure: str = ""

    def final(self) -> float | None:
        """Return of the last policy."""
        if self.record is None:
            return None
        found = phases(self.record)
        last = found.get("online") or found.get("offline")
        return None if last is None else last.mean


def metrics(entries: Sequence[Entry]) -> dict[str, float]:
    """Mean, of several runs its interval, and interquartile mean for each dataset; how many failed."""
    values: dict[str, float] = {
        "members": len(entries),
        "failed": sum(bool(entry.failure) for entry in entries),
    }
    for dataset, scores in _by_dataset(entries).items():
        values |= {
            f"{dataset}/mean": float(np.mean(scores)),
            f"{dataset}/interquartile_mean": float(interquartile_mean(scores)),
        }
        interval = mean_interval(scores)
        if interval is not None:
            values |= {f"{dataset}/interval_low": interval[0], f"{dataset}/interval_high": interval[1]}
    return values


def markdown(entries: Sequence[Entry]) -> str:
    """The leaderboard as text."""
    lines = [
        "| Dataset | Runs | Mean | 95% interval of it, by t | Interquartile mean | Failed |",
        "|---|---|---|---|---|---|",
    ]
    by_dataset = _by_dataset(entries)
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        failed = sum(bool(entry.failure) for entry in entries if entry.dataset == dataset)
        scores = by_dataset.get(dataset)
        figures = "– | – | –"
        if scores:
            interval = mean_interval(scores)
            shown = "–" if interval is None else "{:.1f} to {:.1f}".format(*interval)
            figures = f"{np.mean(scores):.1f} | {shown} | {interquartile_mean(scores):.1f}"
        lines.append(f"| {_cell(dataset)} | {len(scores or [])} | {figures} | {failed} |")
    names = " | ".join(PHASES[key] for key in SHOWN)
    lines += ["", f"| Dataset | Seed | {names} |", "|---|---|---|---|---|"]
    for entry in sorted(entries, key=_rank):
        lines.append(f"| {_cell(entry.dataset)} | {entry.seed} | {_scores(entry)} |")
    lines += _profile(entries)
    return "\n".join(lines) + "\n"


def _rank(entry: Entry) -> float:
    final = entry.final()
    return np.inf if final is None else -final


def _by_dataset(entries: Sequence[Entry]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for entry in entries:
        score = entry.final()
        if score is not None:
            found.setdefault(entry.dataset, []).append(score)
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
