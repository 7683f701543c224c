"""Was each offline step safe."""

import statistics
from collections import Counter
from typing import Any

from unio4_lib import words
from unio4_lib.methods.unio4.fact_types import JudgeFacts, Ranking
from unio4_lib.report.chart import Chart, span
from unio4_lib.report.curves import SIZE, curves
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import FULL, figure, grid, quiet, section, table
from unio4_lib.report.phases import FEW_EPISODES
from unio4_lib.report.record import Decision, RunRecord
from unio4_lib.report.summary import Gate
from unio4_lib.words import interval_factor

PANELS = 4  # members side by side
RANKING_EPISODES = 20  # behind a true return of the ranking, at most
FITTED = "Fitted Q, discounted"
ACTING = {"mean": "mean action", "sampled": "sampled actions"}


def improvement_section(record: RunRecord) -> Markup:
    decisions, gate = record.decisions, record.summary.gate or Gate(checks=0, accepted=0)
    stage = record.stage("improve-policy")
    title = "Offline improvement"
    chosen, content = gate.chosen_member, list[Any]()
    if gate.first is not None:
        told = " ".join(part for part in (start_sentence(gate), opinion_sentence(gate)) if part)
        content += [el("p", told), _portfolio_table(gate)]
    if not decisions:
        content.append(quiet(trust_sentence(gate) or "This run kept no decisions of its gate."))
        return section("improvement", title, *content)
    content.append(el("p", _gate_sentence(decisions)))
    figures = [_gate_figure(decisions, gate, chosen, interval_factor(_starts(record)))]
    if estimates := stage.series("improve/estimate"):
        note = (
            "By rollouts in the learned models. Every look draws new starts, hence the common ups and downs."
        )
        strong = None if chosen is None else str(chosen)
        draw = curves(estimates, "c-offline", "estimate", "Estimates of what was accepted", strong=strong)
        whose = "each track's accepted policy" if len(estimates) > 1 else "the accepted policy"
        figures.append(figure(f"Estimated return of {whose}", draw, note))
    ope = record.stage("report").facts(JudgeFacts).ope
    if ope:
        figures.append(_truth_figure(ope, interval_factor(_ranking_episodes(record))))
    content += [grid(*figures), _tracks_table(decisions, gate)]
    content += [el("p", rule)] if (rule := choice_rule(record, gate)) else []
    if not ope:
        content.append(quiet("This run did not compare estimates with true returns."))
    return section("improvement", title, *content)


def _starts(record: RunRecord) -> int:
    """Starts behind a check of the gate."""
    return int(record.setting("improve.starts") or FEW_EPISODES)


def _ranking_episodes(record: RunRecord) -> int:
    """Episodes behind each true return of the ranking."""
    return min(int(record.setting("evaluate.episodes") or FEW_EPISODES), RANKING_EPISODES)


def start_sentence(gate: Gate) -> str:
    """How the policy to start from was found, and how far the judge is to be trusted."""
    first = gate.first.name if gate.first is not None else words.UNKNOWN
    if not gate.trusted:
        return f"{trust_sentence(gate)} What is delivered is a clone of kind {first}, as it was cloned."
    judged = words.count(len(gate.portfolio))
    text = f"The models judged {judged} policies; the delivered one began as {first}."
    return " ".join(part for part in (trust_sentence(gate), text) if part)


def trust_sentence(gate: Gate) -> str:
    """Why the models may judge, or may not; empty where nothing recorded can tell."""
    trust = gate.trust
    if trust is None:
        return ""
    found = (
        f"in the models, clones of kind {trust.weighting} return {words.number(trust.modeled)}, where "
        f"the data recorded {words.number(trust.recorded)}"
    )
    if trust.trusted:
        return f"The models may judge: {found}."
    return f"The models may not judge, so nothing was accepted: {found}."


def opinion_sentence(gate: Gate) -> str:
    """What the second estimate says; empty where nobody asked for it."""
    if gate.fqe is None:
        return ""
    first, found = gate.portfolio[gate.fqe.first].name, gate.fqe.rank_correlation
    ranks = "" if found is None else f", and its ranks correlate by {words.ratio(found)} with the models'"
    side = "no worse than" if gate.fqe.agrees else "worse than"
    return (
        f"Fitted Q evaluation, which decides nothing, puts one of kind {first} first{ranks}; to it the "
        f"models' choice is {side} a plain clone."
    )


def fitted_value(gate: Gate, number: int) -> str:
    """The second estimate of a policy in the portfolio, with its spread."""
    assert gate.fqe is not None
    spreads = gate.fqe.spreads
    return words.with_error(gate.fqe.values[number], spreads[number] if spreads else None)


def _portfolio_table(gate: Gate) -> Markup:
    """What the judge saw of each policy that improvement could begin from."""
    begun, ways = gate.started_from, list(gate.portfolio[0].estimates)
    rows = []
    for number, member in enumerate(gate.portfolio):
        track = f"track {begun.index(number)}" if number in begun else ""
        estimates = [words.number(member.estimates[way]) for way in ways]
        estimates += [] if gate.fqe is None else [fitted_value(gate, number)]
        rows.append([f"{member.name} ({number})", *estimates, track])
    heads = [f"Estimate, {ACTING[way]}" for way in ways]
    heads += [] if gate.fqe is None else [FITTED]
    return table(["Policy: how it was cloned, or by whom it was trained", *heads, "Start of"], rows)


def _gate_sentence(decisions: list[Decision]) -> str:
    accepted = sum(entry.accepted for entry in decisions)
    text = (
        f"The gate looked at {words.count(len(decisions))} candidates and let {words.count(accepted)} pass."
    )
    reasons = Counter(entry.refusal for entry in decisions if entry.refusal)
    if reasons:
        told = ", ".join(f"{words.count(count)} {reason}" for reason, count in reasons.most_common())
        text += f" Refused: {told}."
    return text


def choice_rule(record: RunRecord, gate: Gate) -> str:
    """Which of several tracks is delivered; empty where there is one."""
    if len(gate.started_from) < 2:
        return ""
    share = record.setting("improve.believed_gain")
    if share is None or share == 1.0:  # runs from before there was such a setting know no other rule
        return "Delivered is the track with the highest estimate."
    return (
        f"Delivered is the track with the highest estimate, where {words.percent(share)} of its gain over "
        f"its own start counts and a later track has to lead by {words.percent(gate.margin)}."
    )


def _tracks_table(decisions: list[Decision], gate: Gate) -> Markup:
    """What became of each track."""
    estimates, rows = gate.estimates, list[list[str]]()
    for track in sorted({entry.member for entry in decisions}):
        own = [entry for entry in decisions if entry.member == track]
        passed = [entry.step for entry in own if entry.accepted]
        final = [words.number(value) for value in estimates[track].values()] if track < len(estimates) else []
        last = f"step {words.count(passed[-1])}" if passed else words.UNKNOWN
        name = f"track {track}" + (", chosen" if track == gate.chosen_member else "")
        rows.append([name, f"{len(passed)} of {len(own)}", last, " / ".join(final) or words.UNKNOWN])
    ways = " / ".join(ACTING[way] for way in estimates[0]) if estimates else ""
    return table(["Track", "Accepted", "Last accepted", f"Estimate at the final choice, {ways}"], rows)


def _gate_figure(decisions: list[Decision], gate: Gate, chosen: int | None, factor: float) -> Markup:
    members = sorted({entry.member for entry in decisions})
    limits = _limits(decisions, factor)
    title = "What each candidate would have gained over the policy it was to replace, by estimate"
    note = (
        "Filled: accepted; hollow: refused; bars: 95% intervals of the paired difference; triangles: "
        f"beyond the scale. {gate_rule(gate)} A point names the test that refused it."
    )

    def draw(width: float) -> Markup:
        columns = min(PANELS, len(members)) if width == FULL else min(2, len(members))
        size = ((width - 20 * (columns - 1)) / columns, 190.0)
        panels = []
        for member in members:
            own = [entry for entry in decisions if entry.member == member]
            panels.append(_gate_panel(own, member, size, limits, factor, chosen=member == chosen))
        return el("div", panels, class_="multiples", style=f"--columns:{columns}")

    return figure(title, draw, note, full=True)


def gate_rule(gate: Gate) -> str:
    """What a candidate had to show."""
    if not gate.margin and gate.confidence <= 0.5:
        return "A candidate passes when its estimate is higher."
    return (
        f"A candidate passes when its gain is sure to {words.percent(gate.confidence)}, at least "
        f"{words.percent(gate.margin)} of the estimate, and not paid for by one way of acting."
    )


def _limits(decisions: list[Decision], factor: float) -> tuple[float, float]:
    """A scale on which the ordinary decisions can be read; a few disasters must not flatten them."""
    reach = [abs(entry.difference) + factor * entry.stderr for entry in decisions]
    passed = [entry.difference + factor * entry.stderr for entry in decisions if entry.accepted]
    usual = max([3 * statistics.median(reach), *passed])
    low = max(-usual, min(entry.difference - factor * entry.stderr for entry in decisions))
    high = min(usual, max(entry.difference + factor * entry.stderr for entry in decisions))
    return span([low, high, 0.0])


def _gate_panel(
    decisions: list[Decision],
    member: int,
    size: tuple[float, float],
    limits: tuple[float, float],
    factor: float,
    *,
    chosen: bool,
) -> Markup:
    steps = [entry.step for entry in decisions]
    chart = Chart(size, (0, max(steps) * 1.04), limits, left=38, right=6, top=28)
    name = f"track {member}" + (", chosen" if chosen else "")
    chart.y_axis()
    chart.text(0, 12, name, "strong" if chosen else "axis-label")
    chart.x_axis("steps")
    chart.add("line", class_="base", x1=chart.x.start, x2=chart.x.end, y1=chart.y(0), y2=chart.y(0))
    for entry in decisions:
        gain, error = entry.difference, entry.stderr
        word = "accepted" if entry.accepted else f"refused, {entry.refusal or 'no reason kept'}"
        text = (
            f"step {words.count(entry.step)}: {word}\ngain {words.with_error(gain, error)}\n"
            f"candidate {words.number(entry.candidate)}, current {words.number(entry.current)}"
        )
        reach = factor * error
        if not limits[0] <= gain <= limits[1]:
            _triangle(chart, entry.step, up=gain > limits[1], text=text)
            continue
        chart.interval(entry.step, gain - reach, gain + reach, "c-offline thin pale")
        chart.dot(entry.step, gain, "c-offline" if entry.accepted else "c-offline hollow", text, 4)
    return chart.svg(f"Gains and decisions of {name}")


def _triangle(chart: Chart, step: int, *, up: bool, text: str) -> None:
    x, y, way = chart.x(step), (chart.y.end + 2 if up else chart.y.start - 2), (1 if up else -1)
    corners = f"{x - 4:.1f},{y + 7 * way:.1f} {x + 4:.1f},{y + 7 * way:.1f} {x:.1f},{y:.1f}"
    chart.add("polygon", el("title", text), class_="dot hollow c-offline", points=corners)


def _truth_figure(ranking: Ranking, reach: float) -> Markup:
    points, found = ranking.points, ranking.rank_correlation
    title = f"Estimates against true returns of {len(points)} policies" + (
        "" if found is None else f": rank correlation {words.ratio(found)}"
    )
    note = (
        "True returns were measured afterwards, in the simulator; no decision saw them. Bars: 95% intervals."
    )

    def draw(width: float) -> Markup:
        heights = [row.truth + sign * reach * row.stderr for row in points for sign in (-1, 1)]
        chart = Chart((width, SIZE + 20), span([row.estimate for row in points]), span(heights))
        chart.y_axis("true return")
        chart.x_axis("estimate")
        for row in points:
            color = "c-clones" if row.label.startswith("clone") else "c-offline"
            low, high = row.truth - reach * row.stderr, row.truth + reach * row.stderr
            true = words.with_error(row.truth, row.stderr)
            text = f"{row.label}\nestimate {words.number(row.estimate)}\ntrue {true}"
            chart.interval(row.estimate, low, high, f"{color} thin pale")
            chart.dot(row.estimate, row.truth, color, text, 4)
        return chart.svg("Estimates of policies against their true returns")

    return figure(title, draw, note)
