"""Can I trust what was learned from the data: clones, critics and models."""

from typing import Any

from unio4_lib import words
from unio4_lib.methods.unio4.fact_types import BehaviorFacts, CriticsFacts, DynamicsFacts, StepErrors
from unio4_lib.report.chart import Chart, span
from unio4_lib.report.curves import SIZE, Series, curves
from unio4_lib.report.markup import Markup, el
from unio4_lib.report.page import figure, grid, quiet, section
from unio4_lib.report.record import RunRecord


def clones_section(record: RunRecord) -> Markup:
    stage = record.stage("clone-behavior")
    facts = stage.facts(BehaviorFacts)
    figures = []
    likelihood = stage.series("behavior/holdout_log_likelihood")
    if likelihood:
        ends = [points[-1][1] for points in likelihood.values()]
        both = dict.fromkeys((words.number(min(ends)), words.number(max(ends))))
        title = f"On held-out episodes the clones' log-likelihood ended at {' to '.join(both)}"
        note = "Higher is better; each clone keeps the weights of its best look. Numbers name the clones."
        draw = curves(likelihood, "c-clones", "log-likelihood of an action", "Hold-out log-likelihood")
        figures.append(figure(title, draw, note))
    if facts.divergence and facts.overlap:
        figures.append(_divergence_figure(facts.divergence, facts.overlap))
    clones = record.score("behavior")
    members = clones.members if clones is not None else []
    if members:
        figures.append(_members_figure(members, record))
    content: list[Any] = (
        [grid(*figures)] if figures else [quiet("This run kept no training curves of its clones.")]
    )
    if not facts.divergence:
        content.append(quiet("This run recorded no details of how far the clones differ."))
    return section("clones", "The clones", *content)


def _divergence_figure(divergence: list[list[float]], shared: list[float]) -> Markup:
    members = len(divergence)
    others = [divergence[i][j] for i in range(members) for j in range(members) if i != j]
    most = max(others, default=0.0) or 1.0
    mean = sum(others) / len(others) if others else 0.0
    overlap = sum(shared) / len(shared)
    title = (
        f"The clones differ by {words.number(mean)} nats on average and overlap by {words.percent(overlap)}"
    )
    note = "KL divergence of the row's clone from the column's, on held-out states; 0 would be copies."

    def draw(width: float) -> Markup:
        cell = min(46.0, (width - 80) / members)
        chart = Chart(
            (width, cell * members + 40), (0, members), (0, members), left=64, top=24,
            right=width - 64 - cell * members, bottom=16,
        )  # fmt: skip
        for i in range(members):
            chart.text(0, chart.y(members - i - 0.5) + 4, f"clone {i}", "axis")
            chart.text(chart.x(i + 0.5), 14, str(i), "axis", "middle")
            for j in range(members):
                value = divergence[i][j]
                place = {"x": chart.x(j) + 1, "y": chart.y(members - i) + 1}
                shade = "0.04" if i == j else f"{0.08 + 0.5 * value / most:.2f}"
                name = el("title", f"clone {i} from clone {j}: {words.number(value)} nats")
                chart.add(
                    "rect",
                    name,
                    class_="bar c-clones",
                    fill_opacity=shade,
                    width=cell - 2,
                    height=cell - 2,
                    **place,
                )
                if i != j:
                    text = words.number(value)
                    chart.text(chart.x(j + 0.5), chart.y(members - i - 0.5) + 4, text, "cell", "middle")
        return chart.svg("Matrix of divergences between the clones")

    return figure(title, draw, note)


def _members_figure(members: list[float], record: RunRecord) -> Markup:
    data = record.summary.dataset.mean_return
    title = f"In the simulator the clones return {words.number(min(members))} to {words.number(max(members))}"
    note = "Mean action of each clone. The offline stage starts from these, and never sees these numbers."

    def draw(width: float) -> Markup:
        around = (-0.5, len(members) - 0.5)
        chart = Chart((width, SIZE), around, span([*members, data or 0.0], zero=True), right=84)
        chart.y_axis("return")
        chart.x_axis("clone", lambda value: f"{value:.0f}", at=range(len(members)))
        for index, value in enumerate(members):
            title = f"clone {index}: {words.number(value)}"
            chart.interval(index, 0.0, value, "c-clones pale")
            chart.dot(index, value, "c-clones", title, 6)
            chart.text(chart.x(index), chart.y(value) - 11, words.number(value), "strong halo", "middle")
        if data is None:
            return chart.svg("Return of each clone in the simulator")
        chart.rule_y(data, "")
        chart.end_labels([(data, f"data {words.number(data)}", "c-data")])
        return chart.svg("Return of each clone in the simulator beside the data's mean")

    return figure(title, draw, note)


def critics_section(record: RunRecord) -> Markup:
    stage = record.stage("fit-critics")
    facts = stage.facts(CriticsFacts)
    figures = []
    if facts.bins:
        figures.append(_calibration_figure(facts))
    if loss := stage.series("critics/loss"):
        figures.append(_loss_figure(loss, record.setting("critics.monte_carlo_steps") or 0))
    if not facts.bins and (correlation := stage.series("critics/value_return_correlation")):
        title = (
            f"Values correlate with returns by {words.ratio(stage.last('critics/value_return_correlation'))}"
        )
        draw = curves(correlation, "c-offline", "correlation", "Correlation of values and returns")
        figures.append(
            figure(title, draw, "Over states of the dataset, with their discounted Monte-Carlo returns.")
        )
    content: list[Any] = (
        [grid(*figures)] if figures else [quiet("This run kept no training curves of its critics.")]
    )
    if not facts.bins:
        content.append(quiet("This run recorded no calibration of its critics."))
    return section("critics", "The critics", *content)


def _loss_figure(loss: Series, warm: int) -> Markup:
    """The loss of bootstrapping alone: the regression before it has a scale of its own."""
    later = {name: [point for point in points if point[0] > warm] for name, points in loss.items()}
    shown, note = loss, None
    if warm and min(map(len, later.values())) > 1:
        shown = later
        note = f"After the first {words.count(warm)} steps, which fit Monte-Carlo returns to begin with."
    draw = curves(smooth(shown), "c-soft", "loss, smoothed", "Critic loss")
    return figure("Loss of values and Q", draw, note)


def smooth(series: Series, window: int = 7) -> Series:
    """Mean over the neighbors of each point; single minibatch losses say little."""
    reach = window // 2
    return {
        name: [
            (step, sum(v for _, v in points[max(0, i - reach) : i + reach + 1])
             / len(points[max(0, i - reach) : i + reach + 1]))
            for i, (step, _) in enumerate(points)
        ]
        for name, points in series.items()
    }  # fmt: skip


def _calibration_figure(facts: CriticsFacts) -> Markup:
    where = (
        f"{words.number(abs(facts.bias))} {'above' if facts.bias > 0 else 'below'}" if facts.bias else "at"
    )
    title = (
        f"Values lie {where} the returns that followed on average; "
        f"correlation {words.ratio(facts.correlation)}"
    )
    note = (
        "Each dot: an equal number of states, by value; bars: one standard deviation of the returns. "
        "On the dotted line values are exact. Returns cut by a time limit count less than they are worth."
    )
    numbers = [row.value for row in facts.bins]
    numbers += [row.returned + sign * row.std for row in facts.bins for sign in (-1, 1)]

    def draw(width: float) -> Markup:
        both = span(numbers)
        chart = Chart((width, SIZE + 50), both, both)
        chart.y_axis("discounted return that followed")
        chart.x_axis("value (V)")
        chart.add("line", class_="rule", x1=chart.x.start, y1=chart.y.start, x2=chart.x.end, y2=chart.y.end)
        for row in facts.bins:
            low, high = row.returned - row.std, row.returned + row.std
            chart.interval(row.value, low, high, "c-offline thin pale")
            name = f"value {words.number(row.value)}: returns {words.with_error(row.returned, row.std)}"
            chart.dot(row.value, row.returned, "c-offline", f"{name} ({words.count(row.rows)} states)", 4)
        return chart.svg("Values of the critic against the returns that followed")

    return figure(title, draw, note)


def models_section(record: RunRecord) -> Markup:
    stage = record.stage("fit-dynamics")
    facts = stage.facts(DynamicsFacts)
    figures = []
    if facts.k_step:
        figures.append(_k_step_figure(facts.k_step))
    if error := stage.series("dynamics/holdout_squared_error"):
        ends = [points[-1][1] for points in error.values()]
        title = f"One step: {words.percent(sum(ends) / len(ends))} of the variance is left unexplained"
        note = "Squared error on held-out episodes, in variances of the targets. Numbers name the models."
        draw = curves(error, "c-offline", "squared error", "Hold-out error of the models")
        figures.append(figure(title, draw, note))
    if facts.calibration:
        figures.append(_confidence_figure(facts.calibration))
    elif within := stage.series("dynamics/within_one_std"):
        title = (
            f"{words.percent(stage.last('dynamics/within_one_std'))} of errors lie within one predicted std"
        )
        draw = curves(within, "c-offline", "share within one std", "Share of errors within one std")
        figures.append(figure(title, draw, "68% would be exact; less is too sure of itself."))
    content: list[Any] = (
        [grid(*figures)] if figures else [quiet("This run kept no training curves of its models.")]
    )
    if not facts.calibration:  # written with the errors, of which short episodes have none
        content.append(quiet("This run recorded no errors of its models over many steps."))
    return section("models", "The models", *content)


def _k_step_figure(found: StepErrors) -> Markup:
    members, still, steps = found.members, found.no_change, found.steps
    mean = [sum(column) / len(column) for column in zip(*members, strict=True)]
    better = (k for k, model, none in zip(steps, mean, still, strict=True) if model <= none)
    held = max(better, default=0)  # the last step at which the models were the better guess
    beaten = next((k for k in steps if k > held), None)
    away = words.number(mean[-1])
    title = f"After {steps[-1]} steps on their own the models are off by {away} standard deviations"
    if beaten is not None:
        title += f"; from step {beaten} on, no change would be the better guess"
    note = (
        f"From {words.count(found.starts)} held-out states with the recorded actions; root mean square "
        "per dimension. Dashed: the guess that nothing changes."
    )

    def draw(width: float) -> Markup:
        values = [value for row in [*members, still] for value in row]
        chart = Chart((width, SIZE), (0, steps[-1]), span(values, zero=True), right=76)
        chart.y_axis("error in standard deviations")
        chart.x_axis("steps ahead")
        chart.line(zip(steps, still, strict=True), "c-data dashed")
        for row in members:
            chart.line(zip(steps, row, strict=True), "c-offline thin pale")
        chart.line(zip(steps, mean, strict=True), "c-offline")
        chart.end_labels([(mean[-1], "models", "c-offline"), (still[-1], "no change", "c-data")])
        chart.hover(
            [
                (k, f"{k} steps ahead\nmodels: {words.number(model)}\nno change: {words.number(none)}")
                for k, model, none in zip(steps, mean, still, strict=True)
            ]
        )
        return chart.svg("Error of the models over steps ahead, beside the guess that nothing changes")

    return figure(title, draw, note)


def _confidence_figure(calibration: list[list[float]]) -> Markup:
    gap = max((share - level for level, share in calibration), key=abs)
    side = "too modest: more" if gap > 0 else "too sure: fewer"
    title = (
        "The models know their own error"
        if abs(gap) < 0.05
        else f"The models are {side} errors than promised lie within their intervals"
    )
    note = "On the dotted line a predicted interval holds exactly as many errors as it claims."

    def draw(width: float) -> Markup:
        chart = Chart((width, SIZE), (0.0, 1.0), (0.0, 1.0))
        chart.y_axis("share of errors within", words.percent)
        chart.x_axis("predicted interval", words.percent)
        chart.add("line", class_="rule", x1=chart.x.start, y1=chart.y.start, x2=chart.x.end, y2=chart.y.end)
        chart.line([(0.0, 0.0), *map(tuple, calibration), (1.0, 1.0)], "c-offline")  # type: ignore[list-item]
        for level, share in calibration:
            text = f"{words.percent(level)} interval: {words.percent(share)} of errors"
            chart.dot(level, share, "c-offline", text)
        return chart.svg("Share of errors within predicted intervals")

    return figure(title, draw, note)
