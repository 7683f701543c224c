"""What fine-tuning online did."""

from unio4_lib import words
from unio4_lib.report.chart import Chart, span
from unio4_lib.report.curves import SIZE, curves
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import figure, grid, quiet, section, table
from unio4_lib.report.phases import dip, interval_of, phases
from unio4_lib.report.record import RunRecord

SWITCH_SHARE = 0.25  # of the online steps that the close look at the switch shows
TIMES_WIDTH = 44.0  # pixels of a label such as 1.05×, with air


def online_section(record: RunRecord) -> Markup:
    curve = record.curve
    if len(curve) < 2:
        return section("online", "Fine-tuning online", quiet("This run has no online learning curve."))
    figures = [_switch_figure(record)]
    stage = record.stage("finetune-online")
    for metric, label, title in (
        ("acting/sampled_return", "return", "What the learner earned, by sampled actions"),
        ("policy/kl", "KL divergence", "How far each update moved the policy"),
        ("value/explained_variance", "explained variance", "How much of the returns V explains"),
    ):
        if series := stage.series(metric):
            figures.append(figure(title, curves(series, "c-online", label, title)))
    rows = [
        [
            words.count(steps),
            words.with_error(mean, stderr),
            words.ratio(mean / curve[0][1]) if curve[0][1] > 0 else "",
        ]
        for steps, mean, stderr in curve
    ]
    numbers = el(
        "details",
        el("summary", "Every evaluation of the curve"),
        table(["Environment steps", "Return ± standard error", "Times the first"], rows, words_first=0),
    )
    return section("online", "Fine-tuning online", grid(*figures), numbers)


def _switch_figure(record: RunRecord) -> Markup:
    curve, fall = record.curve, dip(record)
    end = max(SWITCH_SHARE * curve[-1][0], curve[min(2, len(curve) - 1)][0])
    points = [row for row in curve if row[0] <= end]
    offline = phases(record).get("offline")
    if fall is not None and fall.ratio is not None:
        known = "its worst" if fall.looks > 1 else "the one early look, which can miss a drop"
        title = f"The switch: {words.ratio(fall.ratio)} of the score before the first step, at {known}"
    else:
        title = "The switch: the first steps online"
    note = f"The first {words.count(end)} environment steps, mean actions; band and bars: 95% intervals."

    def draw(width: float) -> Markup:
        values = [edge for row in points for edge in interval_of(row, record)]
        values += list(offline.interval) if offline else []
        chart = Chart((width, SIZE + 20), (-0.03 * end, end * 1.03), span(values, zero=True))
        chart.y_axis("return")
        chart.x_axis("environment steps after the switch")
        warm = record.setting("finetune.warmup_steps")
        if warm and warm < end:
            place = {"x": chart.x(0), "width": chart.x(warm) - chart.x(0)}
            chart.add("rect", class_="zone", y=chart.y.end, height=chart.y.start - chart.y.end, **place)
            chart.text(chart.x(warm / 2), chart.y.start - 8, "only V learns", "note", "middle")
        if offline is not None:
            low, high = offline.interval
            chart.band([(chart.x.low, low, high), (chart.x.high, low, high)], "c-offline")
            chart.rule_y(offline.mean, "")
            chart.text(
                chart.x.end,
                chart.y(high) - 5,
                f"offline {words.number(offline.mean)}",
                "label c-offline",
                "end",
            )
        chart.line([(row[0], row[1]) for row in points], "c-online")
        free = chart.x.start  # where the next label would touch none before it
        for row in points:
            chart.interval(row[0], *interval_of(row, record), "c-online thin")
            text = f"{words.count(row[0])} steps: {words.with_error(row[1], row[2])}"
            chart.dot(row[0], row[1], "c-online", text, 4.5)
            if curve[0][1] > 0 and row[0] > (warm or 0) and chart.x(row[0]) >= free:
                free = chart.x(row[0]) + TIMES_WIDTH
                times = f"{words.ratio(row[1] / curve[0][1])}×"
                below = chart.y(interval_of(row, record)[0]) + 15
                chart.text(chart.x(row[0]), below, times, "strong halo", "middle")
        return chart.svg("Return in the first environment steps after the switch, against the offline score")

    return figure(title, draw, note)
