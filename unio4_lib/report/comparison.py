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
from unio4_lib.report.aggregate import (
    FEWEST_RUNS,
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
)
from unio4_lib.report.chart import Chart, Scale, span, ticks
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import FULL, figure, grid, page, quiet, section, table
from unio4_lib.report.phases import PHASES, change, dip, phases, start
from unio4_lib.report.record import RunRecord
from unio4_lib.settings.keys import flat_settings

COMPARISON = "comparison.html"
THRESHOLDS = 121
LETTER, NARROW_LETTER = 7.8, 6.2  # width of one in a label
BETWEEN = f"95% bootstrap intervals from {FEWEST_RUNS} runs on, below that from the lowest run to the highest"


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

    def scores(self, key: str) -> list[float]:
        """Scores of a phase, as far as runs have them."""
        return [score for record in self.records if (score := self.score(record, key)) is not None]

    def by_dataset(self) -> dict[str, "Runs"]:
        """Runs of one dataset each: those of different ones are never put together."""
        found: dict[str, list[RunRecord]] = {}
        for record in self.records:
            found.setdefault(source(record), []).append(record)
        return {name: Runs(records, self.normalized) for name, records in found.items()}

    def label(self, record: RunRecord) -> str:
        """The dataset where there are several, the seed, and where that is not enough a number."""
        seed = f"seed {record.summary.seed}"
        several = len({source(other) for other in self.records}) > 1
        alike = [other for other in self.records if _same(other, record)]
        methods = {method(other) for other in self.records}
        name = f"{source(record)}, {seed}" if several else seed
        name = f"{method(record)}, {name}" if len(methods) > 1 else name
        return name if len(alike) == 1 else f"{name} #{1 + alike.index(record)}"


def source(record: RunRecord) -> str:
    """The dataset that a run learned from."""
    return str(record.summary.dataset.id or record.env_id)


def method(record: RunRecord) -> str:
    """What it learned by."""
    return str(record.setting("method") or "")


def _same(one: RunRecord, other: RunRecord) -> bool:
    return _told(one) == _told(other)


def _told(record: RunRecord) -> tuple[object, ...]:
    return source(record), method(record), record.summary.seed


def write_comparison(records: Sequence[RunRecord], path: Path) -> None:
    """Write the comparison of at least two runs; it appears whole or not at all."""
    write_atomically(path, render_comparison(records).encode("utf-8"))


def render_comparison(records: Sequence[RunRecord]) -> str:
    """The whole page."""
    if len(records) < 2:
        raise InputError(f"comparison: {len(records)} run given; expected at least two")
    runs = Runs.of(records)
    datasets = runs.by_dataset()
    sections = [
        ("curves", "Curves", _curves_section(datasets)),
        ("spread", "Spread", _spread_section(datasets)),
        ("runs", "Runs", _table_section(runs)),
        ("settings", "Settings", _settings_section(runs)),
    ]
    title = f"{len(records)} runs of {words.listed(sorted({record.env_id for record in records}))}"
    head = el(
        "header",
        el("p", "unio4 · comparison", class_="kicker"),
        el("h1", title),
        el("p", _headline(runs), class_="verdict"),
        [_cells(name, group) for name, group in datasets.items()],
        el("p", f"Interquartile means over the runs of a dataset; {BETWEEN}.", class_="how"),
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
    return " ".join([*sentences, *_switch_sentences(runs)])


def _switch_sentences(runs: Runs) -> list[str]:
    """How deep scores fell at the switch, and in how many runs only one look says so."""
    falls = [fall for fall in map(dip, runs.records) if fall is not None and fall.ratio is not None]
    if not falls:
        return []
    ratios = [fall.ratio for fall in falls if fall.ratio is not None]
    single = sum(fall.looks == 1 for fall in falls)
    every = single == len(falls)
    depth = (
        f"Soon after the switch the score was {words.ratio(min(ratios))} times the offline one "
        f"{'in the worst run' if every else 'at worst'}, "
        f"{words.ratio(float(interquartile_mean(ratios)))} in the middle."
    )
    if not single:
        return [depth]
    known = "Every run had one early look" if every else f"One early look was all in {single} of the runs"
    return [depth, f"{known}, and one look can miss a drop."]


def spread_of(scores: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the middle, or of few runs how far they lie apart; None of a single one."""
    if len(scores) < 2:
        return None
    return bootstrap_interval([scores]) or (min(scores), max(scores))


def _cells(name: str, runs: Runs) -> list[Markup]:
    """The scores of one dataset."""
    count = f"{len(runs.records)} runs" if len(runs.records) > 1 else "one run"
    cells = [_cell(runs, key) for key in PHASES if runs.scores(key)]
    return [el("p", el("code", name), f", {count}", class_="meta"), el("div", cells, class_="scores")]


def _cell(runs: Runs, key: str) -> Markup:
    scores = runs.scores(key)
    middle = float(interquartile_mean(scores))
    interval = spread_of(scores)
    between = [] if interval is None else [" to ".join(map(words.number, interval)), el("br")]
    return el(
        "div",
        el("div", PHASES[key], class_="phase"),
        el("div", words.number(middle), class_="value"),
        el("div", between, runs.unit, class_="under"),
        class_=f"score c-{key}",
    )


def _curves_section(datasets: dict[str, Runs]) -> Markup:
    figures = [
        figure(
            name if len(datasets) > 1 else "Every run from its data to its fine-tuned policy",
            partial(_curves, runs),
            "Thin: single runs; thick: interquartile mean over runs of the online curve."
            if len(runs.records) > 1
            else "One run.",
            full=True,
        )
        for name, runs in datasets.items()
    ]
    return section("curves", "All runs at once", *figures)


def _curves(runs: Runs, width: float) -> Markup:
    records, wide = runs.records, width == FULL
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


def _spread_section(datasets: dict[str, Runs]) -> Markup:
    figures = []
    for name, runs in datasets.items():
        where = f" ({name})" if len(datasets) > 1 else ""
        figures += _spread_figures(runs, where)
    few = None
    fewest = min(len(runs.records) for runs in datasets.values())
    if fewest < FEWEST_RUNS:
        few = quiet(f"{fewest} {'run says' if fewest == 1 else 'runs say'} little about spread.")
    return section("spread", "How much runs spread", grid(*figures), few)


def _spread_figures(runs: Runs, where: str) -> list[Markup]:
    keys = [key for key in PHASES if runs.scores(key)]
    note = (
        "Dots: interquartile mean over runs, the mean of the middle half; small dots: single runs; bars: "
        f"{BETWEEN}."
    )
    profile = "Performance profile: higher is better; where lines cross, no phase is better throughout."
    return [
        figure(f"Middle and spread of each phase{where}", partial(_intervals, runs, keys), note),
        figure(f"How many runs score more than that{where}", partial(_profile, runs, keys[1:]), profile),
    ]


def _intervals(runs: Runs, keys: list[str], width: float) -> Markup:
    singles = {key: runs.scores(key) for key in keys}
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
        if (interval := spread_of(singles[key])) is not None:
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
    singles = {key: runs.scores(key) for key in keys}
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
    rows = []
    for record in runs.records:
        found, fall = phases(record), dip(record)
        cells = [
            words.with_error(found[key].mean, found[key].stderr) if key in found else words.UNKNOWN
            for key in PHASES
        ]
        pairs = (
            (found.get("clones"), found.get("offline")),
            (start(record), found.get("offline")),
            (found.get("offline"), found.get("online")),
        )
        ratios = [words.ratio(change(a, b).ratio) if a and b else words.UNKNOWN for a, b in pairs]
        seconds = sum(stage.seconds for stage in record.stages.values())
        fell = (
            f"{words.ratio(fall.ratio)} ({fall.looks})" if fall and fall.ratio is not None else words.UNKNOWN
        )
        rows.append(
            [runs.label(record), el("code", record.name), *cells, *ratios, fell, words.duration(seconds)]
        )
    head = [
        "Run",
        "Its folder",
        *PHASES.values(),
        "Offline / clones",
        "Offline / its start",
        "Online / offline",
        "Dip",
        "Time",
    ]
    note = (
        "Offline / clones has the choice of a start in it; offline / its start is what improvement added. "
        "Dip: the worst early look, of so many."
    )
    return section("runs", "Run by run", table(head, rows, words_first=2), el("p", note, class_="how"))


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
