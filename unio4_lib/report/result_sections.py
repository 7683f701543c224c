"""The first screen: what came out, in one row of scores, one picture and a list of reasons to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from unio4_lib import words
from unio4_lib.report.chart import Chart, Scale, Span, span, ticks
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import FULL, figure, quiet, section
from unio4_lib.report.phases import (
    PHASES,
    Phase,
    change,
    dip,
    interval_of,
    normalization,
    phases,
)
from unio4_lib.report.record import RunRecord
from unio4_lib.report.verdicts import CheckOf, checks, headline

MARKS = {"good": "✓", "watch": "!", "bad": "✗"}
SINGLE_CLONES = "Small dots: single clones, whose spread the bar of the clones leaves out. "
SPOKEN = {"good": "good", "watch": "to watch", "bad": "bad"}
BEFORE = {  # the first that is there
    "clones": ("data",),
    "offline": ("clones", "data"),
    "online": ("offline",),
}


def header(record: RunRecord) -> Markup:
    summary = record.summary
    parts = [
        f"method {summary.method}" if summary.method is not None else None,
        f"run {record.name}",
        f"seed {summary.seed}" if summary.seed is not None else None,
        _date(record.name),
    ]
    return el(
        "header",
        el("p", "unio4 · offline-to-online reinforcement learning", class_="kicker"),
        el("h1", record.env_id or summary.dataset.id or "A run"),
        el("p", " · ".join(part for part in parts if part), class_="meta"),
        el("p", headline(record), class_="verdict"),
        _scores(record),
    )


def _date(run_id: str) -> str | None:
    """The day and time in a run's name, where it has one."""
    try:
        moment = datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return None
    return f"{moment:%B} {moment.day}, {moment:%Y at %H:%M} UTC"


def _scores(record: RunRecord) -> Markup:
    found = phases(record)
    return el("div", [_score(key, found) for key in PHASES if key in found], class_="scores")


def _score(key: str, found: dict[str, Phase]) -> Markup:
    phase = found[key]
    error = None if phase.stderr is None else el("small", f" ± {words.error(phase.stderr, phase.mean)}")
    lines = []
    if phase.normalized is not None:
        lines.append(f"normalized {words.number(phase.normalized)}")
    before = next((name for name in BEFORE.get(key, ()) if name in found), None)
    if before is not None and (ratio := change(found[before], phase).ratio) is not None:
        lines.append(f"{words.ratio(ratio)} × {PHASES[before].lower()}")
    if phase.sampled is not None:
        mean, stderr = phase.sampled
        lines.append(f"sampled actions {words.number(mean)} ± {words.error(stderr, mean)}")
    if len(phase.members) > 1:
        lines.append(
            f"single clones {words.number(min(phase.members))} to {words.number(max(phase.members))}"
        )
    lines.append(f"{words.count(phase.episodes)} episodes")
    under = [part for line in lines for part in (el("br"), line)][1:]
    return el(
        "div",
        el("div", phase.name, class_="phase"),
        el("div", words.number(phase.mean), error, class_="value"),
        el("div", under, class_="under"),
        class_=f"score c-{key}",
    )


def result_section(record: RunRecord, own: Sequence[CheckOf]) -> Markup:
    """The whole way in one picture, and the checks."""
    offline = record.score("offline")
    sampled = offline is not None and offline.acts == "sampled"
    acting = (
        "mean actions, of the offline policy of sampled ones, as delivered" if sampled else "mean actions"
    )
    note = (
        f"Returns of {acting}. Bars and band: 95% intervals over episodes, by Student's t. "
        f"{SINGLE_CLONES if 'clones' in phases(record) else ''}"
        "Right of the switch every point is an evaluation during fine-tuning; "
        "the large dot is the delivered policy."
    )
    picture: Markup = quiet("This run has no scores.")
    if phases(record):
        title = "From the data to the fine-tuned policy"
        picture = figure(title, lambda width: _journey(record, width), note, full=True)
    items = [
        el(
            "li",
            el("span", MARKS[check.level], class_="mark", role="img", aria_label=SPOKEN[check.level]),
            el("span", check.what, class_="what"),
            el("span", check.why, class_="why"),
            class_=f"c-{check.level}",
        )
        for check in checks(record, own)
    ]
    return el(
        "div",
        section("result", "The result", picture),
        section("trust", "Can I trust this?", *_trust(items)),
    )


def _trust(items: list[Markup]) -> list[Markup]:
    if not items:
        return [quiet("This run has too few numbers to say.")]
    advice = "One seed is one seed: run several, then compare them with unio4 report RUN RUN."
    return [el("ul", items, class_="checks"), quiet(advice)]


@dataclass(frozen=True)
class _Layout:
    """Where the phases before the switch stand, left of the online axis."""

    left: float
    gutter: float
    right: float
    height: float

    def place(self, index: int, count: int) -> float:
        return self.left + self.gutter * (index + 0.5) / count


def _journey(record: RunRecord, width: float) -> Markup:
    """Data, clones and offline at fixed places, then the online curve; one scale of returns."""
    found = phases(record)
    curve = record.curve if len(record.curve) > 1 else []
    wide = width == FULL
    layout = _Layout(48, 250 if wide else 152, 62 if wide else 34, 390 if wide else 310)
    shown = [key for key in found if key != "online" or not curve]
    if not curve:
        layout = _Layout(48, width - 48 - layout.right, layout.right, layout.height)
    numbers = [edge for phase in found.values() for edge in phase.interval]
    numbers += [value for phase in found.values() for value in phase.members]
    numbers += [edge for row in curve for edge in interval_of(row, record)]
    end = curve[-1][0] if curve else 1.0
    chart = Chart(
        (width, layout.height), (0, end), span(numbers, zero=True), left=layout.left + layout.gutter,
        right=layout.right,
    )  # fmt: skip
    chart.y_axis("mean return of an episode", start=layout.left)
    _normalized_axis(chart, normalization(record))
    places = {key: layout.place(index, len(shown)) for index, key in enumerate(shown)}
    _draw_before(chart, found, places)
    if curve:
        # On a phone the first tick would touch the last phase's name.
        at = () if wide else ticks(0, end, 2)[1:]
        chart.x_axis("environment steps online" if wide else "online steps", at=at)
        _draw_online(chart, record, found, places.get("offline"))
    return chart.svg(f"Returns of data, clones, offline and online policies. {headline(record)}")


def _normalized_axis(chart: Chart, known: Span | None) -> None:
    """Scores from 0 (random) to 100 (expert) on the right, where the task has them."""
    if known is None:
        return
    zero, hundred = known
    for score in (0, 25, 50, 75, 100):
        value = zero + (hundred - zero) * score / 100
        if chart.y.low <= value <= chart.y.high:
            place = chart.y(value)
            chart.add("line", class_="tick", x1=chart.x.end, x2=chart.x.end + 4, y1=place, y2=place)
            chart.text(chart.x.end + 8, place + 4, str(score), "axis")
    chart.text(chart.width, 11, "normalized", "axis-label", "end")


def _draw_before(chart: Chart, found: dict[str, Phase], places: dict[str, float]) -> None:
    """Dots with intervals for the phases before the switch, joined by a thin line."""
    pixels = Scale(0, 1, 0, 1)  # x of this part is in pixels already
    online, chart.x = chart.x, pixels
    path = [(places[key], found[key].mean) for key in places]
    chart.line(path, "c-soft thin pale")
    for key, place in places.items():
        phase = found[key]
        for number, value in enumerate(phase.members):
            text = f"clone {number}: {words.number(value)}"
            chart.dot(place + 9, value, f"c-{key} pale", text, 3)
        chart.interval(place, *phase.interval, f"c-{key}")
        chart.dot(
            place, phase.mean, f"c-{key}", f"{phase.name}: {words.with_error(phase.mean, phase.stderr)}", 5.5
        )
        chart.text(place, chart.y.start + 16, phase.name, f"label c-{key}", "middle")
    chart.x = online


def _draw_online(
    chart: Chart, record: RunRecord, found: dict[str, Phase], offline_place: float | None
) -> None:
    curve = record.curve
    chart.add(
        "line", class_="switch", x1=chart.x.start, x2=chart.x.start, y1=chart.y.end - 6, y2=chart.y.start
    )
    chart.text(chart.x.start + 5, chart.y.end + 2, "switch to online", "note")
    if "offline" in found:
        level = chart.y(found["offline"].mean)
        start = chart.x.start if offline_place is None else offline_place
        chart.add("line", class_="rule", x1=start, x2=chart.x.end, y1=level, y2=level)
    chart.band([(row[0], *interval_of(row, record)) for row in curve], "c-online")
    chart.line([(row[0], row[1]) for row in curve], "c-online")
    chart.hover(
        [(row[0], f"{words.count(row[0])} steps\n{words.with_error(row[1], row[2])}") for row in curve]
    )
    for row in curve:
        chart.dot(
            row[0], row[1], "c-online", f"{words.count(row[0])} steps: {words.with_error(row[1], row[2])}", 3
        )
    fall = dip(record)
    if fall is not None and fall.ratio is not None and fall.ratio < 1:
        chart.dot(fall.steps, fall.mean, "ring", radius=7)
        chart.text(
            chart.x(fall.steps) + 11,
            chart.y(fall.mean) + 16,
            f"dip {words.ratio(fall.ratio)}×",
            "strong halo",
        )
    if "online" in found:
        final = found["online"]
        at = record.summary.delivered_at
        place = curve[-1][0] if at is None else at
        chart.interval(place, *final.interval, "c-online")
        text = f"Online, as delivered: {words.with_error(final.mean, final.stderr)}"
        chart.dot(place, final.mean, "c-online", text, 5.5)
