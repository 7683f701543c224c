"""Is my data good: the section about the dataset."""

from typing import Any

from unio4_lib import words
from unio4_lib.report.chart import Chart, span
from unio4_lib.report.facts import ActionColumn, DatasetFacts, Ends, ObservationColumn, Spread
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import figure, grid, quiet, section
from unio4_lib.report.record import RunRecord

MOST_DIMENSIONS = 24
ROW = 22.0  # pixels of one dimension


def data_section(record: RunRecord) -> Markup:
    dataset, facts = record.summary.dataset, record.stage("prepare-dataset").facts(DatasetFacts)
    source = el("p", "Source: ", el("code", dataset.id), class_="meta")
    if not (facts.returns and facts.lengths and facts.ends and facts.actions and facts.observations):
        sentence = (
            f"{words.count(dataset.transitions)} transitions in "
            f"{words.count(dataset.episodes or 0)} episodes. This run recorded no details of its data."
        )
        return section("data", "The data", source, quiet(sentence))
    figures = [
        _returns_figure(facts.returns),
        _lengths_figure(facts.lengths),
        _actions_figure(facts.actions),
        _observations_figure(facts.observations),
    ]
    sentence = _ends_sentence(facts.transitions, facts.episodes or 0, facts.ends)
    return section("data", "The data", source, el("p", sentence), grid(*figures))


def _ends_sentence(transitions: int, episodes: int, ends: Ends) -> str:
    return (
        f"{words.count(transitions)} transitions in {words.count(episodes)} episodes. In "
        f"{words.percent(ends.terminal_share_of_episodes)} of them the task itself ended "
        f"({words.count(ends.terminals)} terminals); "
        f"{words.count(ends.timeouts)} were cut, by a time limit or the end of the recording, which is no "
        "failure and is bootstrapped."
    )


def _histogram(found: Spread, label: str, unit: str) -> Any:
    counts, edges, mean = found.histogram.counts, found.histogram.edges, found.mean

    def draw(width: float) -> Markup:
        chart = Chart((width, 220), (edges[0], edges[-1]), (0, max(counts) * 1.18 or 1))
        chart.y_axis("episodes")
        chart.x_axis(label)
        for index, number in enumerate(counts):
            bounds = f"{words.number(edges[index])} to {words.number(edges[index + 1])}"
            title = f"{bounds}: {words.count(number)} episodes"
            chart.bar((edges[index], edges[index + 1]), (0, number), "c-data", title)
        chart.rule_x(mean, f"mean {words.number(mean)}")
        return chart.svg(f"Histogram of {unit} of the dataset's episodes, mean {words.number(mean)}")

    return draw


def _returns_figure(returns: Spread) -> Markup:
    quantiles = returns.quantiles
    title = (
        f"Returns: half of the episodes lie between {words.number(quantiles.quarter)} and "
        f"{words.number(quantiles.three_quarters)}, the best is {words.number(quantiles.most)}"
    )
    return figure(title, _histogram(returns, "return of an episode", "returns"))


def _lengths_figure(lengths: Spread) -> Markup:
    quantiles = lengths.quantiles
    title = (
        f"Lengths: {words.number(quantiles.least)} to {words.number(quantiles.most)} steps, "
        f"{words.number(lengths.mean)} on average"
    )
    return figure(title, _histogram(lengths, "steps of an episode", "lengths"))


def _actions_figure(rows: list[ActionColumn]) -> Markup:
    shown = rows[:MOST_DIMENSIONS]
    bounded = sum(row.share_at_low + row.share_at_high for row in rows) / len(rows)
    title = f"Where actions lie within their bounds; {words.percent(bounded)} are at a bound"
    note = "Darker: more often. Percentages: share of rows at that bound."
    if len(rows) > len(shown):
        note += f" The first {len(shown)} of {len(rows)} dimensions."

    def draw(width: float) -> Markup:
        bottom = 36.0 if len(shown) else 0.0
        size = (width, ROW * len(shown) + 30 + bottom)
        chart = Chart(size, (0.0, 1.0), (0.0, len(shown)), left=104, right=46, top=18, bottom=bottom)
        chart.x_axis("", lambda value: {0.0: "low", 0.5: "center", 1.0: "high"}[value], at=(0.0, 0.5, 1.0))
        for index, row in enumerate(shown):
            _coverage_row(chart, index, len(shown), row)
        return chart.svg(f"Distribution of actions of {len(shown)} dimensions between their bounds")

    return figure(title, draw, note)


def _coverage_row(chart: Chart, index: int, rows: int, row: ActionColumn) -> None:
    base = rows - index - 1
    most = max(row.counts) or 1
    bins = len(row.counts)
    width = (row.high - row.low) / bins
    height = chart.y(base + 0.5) + 4
    chart.text(0, height, f"action {index}", "axis")
    chart.text(chart.x.start - 6, height, words.percent(row.share_at_low), "axis", "end")
    chart.text(chart.x.end + 6, height, words.percent(row.share_at_high), "axis")
    for place, number in enumerate(row.counts):
        low = row.low + place * width
        left, right = chart.x(place / bins), chart.x((place + 1) / bins)
        share = words.percent(number / sum(row.counts))
        text = f"action {index}, {words.number(low)} to {words.number(low + width)}: {share}"
        chart.add(
            "rect",
            el("title", text),
            class_="bar c-data",
            x=left,
            y=chart.y(base + 0.9),
            width=right - left,
            height=chart.y(base + 0.1) - chart.y(base + 0.9),
            fill_opacity=f"{0.06 + 0.94 * (number / most) ** 0.5:.2f}" if number else "0.03",
        )


def _observations_figure(rows: list[ObservationColumn]) -> Markup:
    ranges = []
    for index, row in enumerate(rows):
        std = row.std or 1.0
        ranges.append((index, (row.min - row.mean) / std, (row.max - row.mean) / std, row))
    ranges.sort(key=lambda entry: entry[1] - entry[2])
    shown = sorted(ranges[:MOST_DIMENSIONS])
    reach = max(max(abs(low), abs(high)) for _, low, high, _ in ranges)
    title = f"Observations reach up to {words.number(reach)} standard deviations from their mean"
    note = (
        "Lines: smallest to largest value; dots: the mean. Far ends are rare states, or faults of a sensor."
    )
    if len(rows) > len(shown):
        note += f" The {len(shown)} widest of {len(rows)} dimensions."

    def draw(width: float) -> Markup:
        low, high = span([entry[1] for entry in shown] + [entry[2] for entry in shown])
        chart = Chart((width, ROW * len(shown) + 54), (low, high), (0.0, len(shown)), left=74, top=18)
        chart.x_axis("standard deviations from the mean")
        for place, (index, smallest, largest, row) in enumerate(shown):
            height = chart.y(len(shown) - place - 0.5)
            words_of = (
                f"observation {index}: {words.number(row.min)} to {words.number(row.max)}, "
                f"mean {words.number(row.mean)}, std {words.number(row.std)}"
            )
            chart.text(0, height + 4, f"obs {index}", "axis")
            ends = {"x1": chart.x(smallest), "x2": chart.x(largest), "y1": height, "y2": height}
            chart.add("line", el("title", words_of), class_="interval c-data", **ends)
            chart.dot(0.0, len(shown) - place - 0.5, "c-data", words_of)
        return chart.svg("Range of each observation dimension in standard deviations from its mean")

    return figure(title, draw, note)
