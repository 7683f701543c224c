"""Training curves."""

from unio4_lib import words
from unio4_lib.report.chart import Chart, span
from unio4_lib.report.markup import Markup
from unio4_lib.report.page import Draw

Series = dict[str, list[tuple[int, float]]]
SIZE = 230.0


def curves(series: Series, class_: str, label: str, what: str, *, strong: str | None = None) -> Draw:
    """Training curves of the members, named at their right end; ``strong`` is the member to look at."""
    values = [value for points in series.values() for _, value in points]
    steps = sorted({step for points in series.values() for step, _ in points})

    def draw(width: float) -> Markup:
        right = 16 if len(series) == 1 else 30
        chart = Chart((width, SIZE), (0, max(steps)), span(values), right=right)
        chart.y_axis(label)
        chart.x_axis("steps")
        for member, points in series.items():
            pale = "" if strong in (None, member) else " pale"
            chart.line(points, f"{class_} {'thin' if len(series) > 1 else ''}{pale}")
        if len(series) > 1:
            chart.end_labels((points[-1][1], member, class_) for member, points in series.items())
        chart.hover([(step, _at_step(series, step)) for step in steps])
        return chart.svg(f"{what} over training steps")

    return draw


def _at_step(series: Series, step: int) -> str:
    lines = [f"step {words.count(step)}"]
    for member, points in series.items():
        value = dict(points).get(step)
        if value is not None:
            lines.append(f"{f'member {member}: ' if member else ''}{words.number(value)}")
    return "\n".join(lines)
