"""Several runs as one statement: what is common, what spreads, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unio4_lib import words
from unio4_lib.errors import InputError
from unio4_lib.files import write_atomically
from unio4_lib.report.aggregate import bootstrap_interval, interquartile_mean, performance_profile
from unio4_lib.report.chart import Chart, Scale, span, ticks
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import FULL, figure, grid, page, quiet, section, table
from unio4_lib.report.phases import PHASES, change, dip, phases
from unio4_lib.report.record import RunRecord
from unio4_lib.settings.keys import flat_settings

COMPARISON = "comparison.html"
THRESHOLDS = 121
LETTER, NARROW_LETTER = 7.8, 6.2  # width of one in a label
INTERVALS = "95% bootstrap intervals where every task has several"


@dataclass(frozen=True)
class Runs:
    """Runs on one scale: normalized scores where every run has them, else plain returns."""

    records: Sequence[RunRecord]
    normalized: bool

    @classmethod
    def of(cls, records: Sequence[RunRecord]) -> "Runs":
        scores = [phase.normalized for record in records for phase in phases(record).values()]
        return cls(records, all(score is not None for score in scores))

    @property
    def unit(self) -> str:
        return "normalized score" if self.normalized else "return"

    def scale(self, record: RunRecord, value: float) -> float:
        """A return of a run on the common scale."""
        if not self.normalized:
            return value
        first, second = list(phases(record).values())[:2]
        assert first.normalized is not None and second.normalized is not None
        if second.mean == first.mean:
            return first.normalized
        slope = (second.normalized - first.normalized) / (second.mean - first.mean)
        return first.normalized + slope * (value - first.mean)

    def score(self, record: RunRecord, key: str) -> float | None:
        phase = phases(record).get(key)
        if phase is None:
            return None
        return phase.normalized if self.normalized else phase.mean

    def by_task(self, key: str) -> list[list[float]]:
        """Scores of a phase, one list for each environment."""
        found: dict[str, list[float]] = {}
        for record in self.records:
            score = self.score(record, key)
            if score is not None:
                found.setdefault(record.env_id, []).append(score)
        return list(found.values())

    def label(self, record: RunRecord) -> str:
        """The shortest name that tells a run from the others."""
        tasks = {other.env_id for other in self.records}
        if len(tasks) == len(self.records):
            return record.env_id
        if len({(other.env_id, other.summary.get("seed")) for other in self.records}) < len(self.records):
            return record.name
        seed = f"seed {record.summary.get('seed')}"
        return seed if len(tasks) == 1 else f"{record.env_id} {seed}"


def write_comparison(records: Sequence[RunRecord], path: Path) -> None:
    """Write the comparison of at least two runs; it appears whole or not at all."""
    write_atomically(path, render_comparison(records).encode("utf-8"))


def render_comparison(records: Sequence[RunRecord]) -> str:
    """The whole page."""
    if len(records) < 2:
        raise InputError(f"comparison: {len(records)} run given; expected at least two")
    runs = Runs.of(records)
    tasks = sorted({record.env_id for record in records})
    sections = [
        ("curves", "Curves", _curves_section(runs, tasks)),
        ("spread", "Spread", _spread_section(runs)),
        ("runs", "Runs", _table_section(runs)),
        ("settings", "Settings", _settings_section(runs)),
    ]
    title = f"{len(records)} runs of {words.listed(tasks)}"
    head = el(
        "header",
        el("p", "unio4 · comparison", class_="kicker"),
        el("h1", title),
        el("p", _headline(runs), class_="verdict"),
        el("div", [_cell(runs, key) for key in PHASES if runs.by_task(key)], class_="scores"),
        el("p", f"Interquartile means over runs; {INTERVALS}.", class_="how"),
    )
    return page(title, head, sections)


def _headline(runs: Runs) -> str:
    moves = {}
    for before, after in (("clones", "offline"), ("offline", "online")):
        found = [phases(record) for record in runs.records]
        changes = [change(each[before], each[after]) for each in found if before in each and after in each]
        moves[after] = [sum(move.direction == way for move in changes) for way in (1, 0, -1)]
    sentences = []
    for key, name in (("offline", "Offline improvement"), ("online", "Fine-tuning")):
        up, same, down = moves[key]
        if up + same + down:
            sentences.append(
                f"{name} helped in {up}, changed nothing in {same} and hurt in {down} of the runs."
            )
    dips = [fall.ratio for fall in map(dip, runs.records) if fall is not None and fall.ratio is not None]
    if dips:
        sentences.append(
            f"Soon after the switch the score was {words.ratio(min(dips))} times the offline one at worst, "
            f"{words.ratio(float(interquartile_mean(dips)))} in the middle."
        )
    return " ".join(sentences)


def _cell(runs: Runs, key: str) -> Markup:
    scores = runs.by_task(key)
    middle = float(interquartile_mean(np.concatenate([np.asarray(task) for task in scores])))
    interval = bootstrap_interval(scores)
    between = [] if interval is None else [" to ".join(map(words.number, interval)), el("br")]
    return el(
        "div",
        el("div", PHASES[key], class_="phase"),
        el("div", words.number(middle), class_="value"),
        el("div", between, runs.unit, class_="under"),
        class_=f"score c-{key}",
    )


def _curves_section(runs: Runs, tasks: list[str]) -> Markup:
    figures = []
    for task in tasks:
        records = [record for record in runs.records if record.env_id == task]
        figures.append(
            figure(
                task if len(tasks) > 1 else "Every run from its data to its fine-tuned policy",
                partial(_curves, runs, records),
                "Thin: single runs; thick: interquartile mean over runs of the online curve."
                if len(records) > 1
                else "One run.",
                full=True,
            )
        )
    return section("curves", "All runs at once", *figures)


def _curves(runs: Runs, records: Sequence[RunRecord], width: float) -> Markup:
    wide = width == FULL
    left, gutter = 48.0, (230.0 if wide else 150.0)
    names = [runs.label(record) for record in records]
    right = (LETTER if wide else NARROW_LETTER) * max(map(len, names)) + 12
    if len(names) == 1 or right > width / 4:  # needed by nobody, or no room beside the curves: dots have it
        names, right = [], 50.0
    keys = [key for key in ("data", "clones", "offline") if all(key in phases(record) for record in records)]
    curves = {
        runs.label(record): [(row[0], runs.scale(record, row[1])) for row in record.curve]
        for record in records
    }
    starts = {runs.label(record): [runs.score(record, key) or 0.0 for key in keys] for record in records}
    values = [value for points in curves.values() for _, value in points]
    values += [value for row in starts.values() for value in row]
    end = max((points[-1][0] for points in curves.values() if points), default=1.0)
    chart = Chart(
        (width, 380 if wide else 310), (0, end), span(values, zero=True), left=left + gutter, right=right
    )
    chart.y_axis(runs.unit, start=left)
    chart.x_axis(
        "online environment steps" if wide else "online steps", at=ticks(0, end, 6 if wide else 2)[1:]
    )
    chart.add("line", class_="switch", x1=chart.x.start, x2=chart.x.start, y1=chart.y.end, y2=chart.y.start)
    online, places = chart.x, [left + gutter * (index + 0.5) / len(keys) for index in range(len(keys))]
    chart.x = Scale(0, 1, 0, 1)
    for name, row in starts.items():
        chart.line(zip(places, row, strict=True), "c-soft thin pale")
        for key, place, value in zip(keys, places, row, strict=True):
            chart.dot(place, value, f"c-{key}", f"{name}, {PHASES[key].lower()}: {words.number(value)}", 4)
    for key, place in zip(keys, places, strict=True):
        chart.text(place, chart.y.start + 16, PHASES[key], f"label c-{key}", "middle")
    chart.x = online
    for name, points in curves.items():
        chart.line(points, "c-online thin pale")
        for step, value in points:
            chart.dot(
                step, value, "c-online", f"{name}, {words.count(step)} steps: {words.number(value)}", 2.5
            )
    chart.line(middle_curve(list(curves.values())), "c-online")
    chart.end_labels([(curves[name][-1][1], name, "c-soft") for name in names if curves[name]])
    return chart.svg(f"{runs.unit} of {len(records)} runs from their data to the end of fine-tuning")


def middle_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Interquartile mean over runs, as far as all of them go; between evaluations by straight lines."""
    known = [curve for curve in curves if len(curve) > 1]
    if not known:
        return []
    first, last = max(c[0][0] for c in known), min(c[-1][0] for c in known)
    steps = np.array(sorted({x for curve in known for x, _ in curve if first <= x <= last}))
    rows = [np.interp(steps, [x for x, _ in curve], [y for _, y in curve]) for curve in known]
    return list(zip(steps.tolist(), interquartile_mean(rows, axis=0).tolist(), strict=True))


def _spread_section(runs: Runs) -> Markup:
    keys = [key for key in PHASES if runs.by_task(key)]
    note = (
        "Dots: interquartile mean over runs, the mean of the middle half; small dots: single runs; bars: "
        f"{INTERVALS}, resampled within each task."
    )
    few = None
    if len(runs.records) < 5:
        few = quiet(f"{len(runs.records)} runs say little about spread: intervals are lower bounds of it.")
    return section(
        "spread",
        "How much runs spread",
        grid(
            figure("Middle and interval of each phase", lambda width: _intervals(runs, keys, width), note),
            figure(
                "How many runs score more than that",
                lambda width: _profile(runs, keys[1:], width),
                "Performance profile: higher is better; where lines cross, no phase is better throughout.",
            ),
        ),
        few,
    )


def _intervals(runs: Runs, keys: list[str], width: float) -> Markup:
    singles = {key: [score for task in runs.by_task(key) for score in task] for key in keys}
    chart = Chart(
        (width, 46.0 * len(keys) + 60), span([v for row in singles.values() for v in row], zero=True),
        (0, len(keys)), left=60, right=20,
    )  # fmt: skip
    chart.x_axis(runs.unit)
    for index, key in enumerate(keys):
        height = len(keys) - index - 0.5
        middle = float(interquartile_mean(singles[key]))
        text = f"{PHASES[key]}: {words.number(middle)}"
        chart.text(0, chart.y(height) + 4, PHASES[key], f"label c-{key}")
        if (interval := bootstrap_interval(runs.by_task(key))) is not None:
            x1, x2 = map(chart.x, interval)
            chart.add(
                "line", class_=f"interval c-{key}", x1=x1, x2=x2, y1=chart.y(height), y2=chart.y(height)
            )
            text += f", {' to '.join(map(words.number, interval))}"
        for score in singles[key]:
            chart.dot(score, height - 0.22, f"c-{key} pale", words.number(score), 3)
        chart.dot(middle, height, f"c-{key}", text, 6)
        chart.text(chart.x(middle), chart.y(height) - 10, words.number(middle), "strong halo", "middle")
    return chart.svg("Interquartile mean and interval of each phase")


def _profile(runs: Runs, keys: list[str], width: float) -> Markup:
    singles = {key: [score for task in runs.by_task(key) for score in task] for key in keys}
    low, high = span([value for row in singles.values() for value in row], zero=True)
    thresholds = np.linspace(low, high, THRESHOLDS)
    chart = Chart((width, 244), (low, high), (0.0, 1.0), right=20)
    chart.y_axis("share of runs", words.percent)
    chart.x_axis(f"{runs.unit} more than")
    for key in keys:
        shares = performance_profile(singles[key], thresholds)
        chart.line(zip(thresholds.tolist(), shares.tolist(), strict=True), f"c-{key}")
    for place, key in zip((0.92, 0.80, 0.68), keys, strict=False):
        chart.text(chart.x.end - 4, chart.y(place), PHASES[key], f"label halo c-{key}", "end")
    return chart.svg("Share of runs above each score, by phase")


def _table_section(runs: Runs) -> Markup:
    several = len({record.env_id for record in runs.records}) > 1
    rows = []
    for record in runs.records:
        found, fall = phases(record), dip(record)
        cells = [
            words.with_error(found[key].mean, found[key].stderr) if key in found else words.UNKNOWN
            for key in PHASES
        ]
        ratios = [
            words.ratio(change(found[a], found[b]).ratio) if a in found and b in found else words.UNKNOWN
            for a, b in (("clones", "offline"), ("offline", "online"))
        ]
        seconds = sum(stage.seconds for stage in record.stages.values())
        fell = words.ratio(fall.ratio) if fall is not None else words.UNKNOWN
        task = [record.env_id] if several else []
        rows.append([runs.label(record), *task, *cells, *ratios, fell, words.duration(seconds)])
    head = [
        *(("Run", "Task") if several else ("Run",)),
        *PHASES.values(),
        *("Offline / clones", "Online / offline", "Dip", "Time"),
    ]
    return section("runs", "Run by run", table(head, rows, words_first=1 + several))


def _settings_section(runs: Runs) -> Markup:
    """What was set differently, so that nobody compares what cannot be compared."""
    flat = [flat_settings(record.config) for record in runs.records]
    names = list(dict.fromkeys(name for settings in flat for name in settings))
    differing = [name for name in names if len({str(settings.get(name)) for settings in flat}) > 1]
    if not differing:
        return section("settings", "Settings", quiet("All runs had the same settings."))
    head = ["Setting", *(runs.label(record) for record in runs.records)]
    rows: list[list[Any]] = [
        [el("code", name), *(settings.get(name, words.UNKNOWN) for settings in flat)] for name in differing
    ]
    return section("settings", "What was set differently", table(head, rows, words_first=len(head)))
