"""A small plotting kit: charts as inline SVG, with direct labels and words for every mark.

A mark's color comes from its class (see page.css), so that one chart serves light, dark and print.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unio4_lib import words
from unio4_lib.report.markup import Markup, el

Span = tuple[float, float]
Point = tuple[float, float]
Format = Callable[[float], str]

LABEL_GAP = 14.0  # pixels between direct labels
LETTER = 6.4  # pixels of an average letter at the charts' size, to leave room for labels
TOP, BOTTOM, RIGHT = 26.0, 36.0, 16.0


@dataclass(frozen=True)
class Scale:
    """Values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clamped(self, value: float) -> float:
        return self(min(max(value, self.low), self.high))


def span(values: Iterable[float], *, zero: bool = False, pad: float = 0.06) -> Span:
    """A range for an axis that holds all values (and zero if asked), with some air."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high == 0.0:
        return 0.0, 1.0
    room = pad * (high - low) or 0.5 * abs(high)
    # Zero as an end stays an end: air below it would suggest that less is possible.
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers in [low, high], about as many as asked."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((power * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(math.log(step / raw)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def spread(places: Sequence[float], low: float, high: float, gap: float = LABEL_GAP) -> list[float]:
    """Places moved apart to at least ``gap`` and kept within [low, high], in their order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, index in zip([None, *order], order, strict=False):
        floor = low if before is None else moved[before] + gap
        moved[index] = max(moved[index], floor)
    for after, index in zip([None, *order[::-1]], order[::-1], strict=False):
        ceiling = high if after is None else moved[after] - gap
        moved[index] = min(moved[index], ceiling)
    return moved


class Chart:
    """One pair of axes in a box of pixels; marks are drawn in the order of the calls."""

    def __init__(
        self,
        size: tuple[float, float],
        x: Span,
        y: Span,
        *,
        left: float = 46.0,
        right: float = RIGHT,
        top: float = TOP,
        bottom: float = BOTTOM,
    ) -> None:
        self.width, self.height = size
        self.x = Scale(*x, left, self.width - right)
        self.y = Scale(*y, self.height - bottom, top)
        self.marks: list[Markup] = []

    def add(self, name: str, *children: Any, **attributes: Any) -> None:
        self.marks.append(el(name, *children, **attributes))

    def text(self, x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> None:
        """Text at pixels."""
        self.add("text", text, x=x, y=y, class_=class_ or None, text_anchor=anchor)

    def x_axis(self, label: str = "", format_: Format | None = None, at: Sequence[float] = ()) -> None:
        """Ticks below; the label ends at the right end of the axis."""
        bottom = self.y.start
        format_ = format_ or words.axis_format(max(abs(self.x.low), abs(self.x.high)))
        room = max(2, int((self.x.end - self.x.start) / 70))
        for value in at or ticks(self.x.low, self.x.high, room):
            self.add("line", class_="tick", x1=self.x(value), x2=self.x(value), y1=bottom, y2=bottom + 4)
            self.text(self.x(value), bottom + 16, format_(value), "axis", "middle")
        self.add("line", class_="base", x1=self.x.start, x2=self.x.end, y1=bottom, y2=bottom)
        self.text(self.x.end, bottom + 31, label, "axis-label", "end")

    def y_axis(
        self, label: str = "", format_: Format | None = None, at: Sequence[float] = (), *, start: float = 0.0
    ) -> None:
        """Faint lines across with their numbers on the left; the label stands above, to be read level."""
        format_ = format_ or words.axis_format(max(abs(self.y.low), abs(self.y.high)))
        room = max(3, int((self.y.start - self.y.end) / 42))
        for value in at or ticks(self.y.low, self.y.high, room):
            height = self.y(value)
            self.add("line", class_="across", x1=start or self.x.start, x2=self.x.end, y1=height, y2=height)
            self.text((start or self.x.start) - 6, height + 4, format_(value), "axis", "end")
        self.text(0, 11, label, "axis-label")

    def line(self, points: Iterable[Point], class_: str) -> None:
        """A line through all finite points."""
        places = [f"{self.x(x):.1f},{self.y.clamped(y):.1f}" for x, y in points if math.isfinite(y)]
        if len(places) > 1:
            self.add("polyline", class_=f"line {class_}", points=" ".join(places))

    def band(self, points: Iterable[tuple[float, float, float]], class_: str) -> None:
        """An area between low and high: (x, low, high)."""
        rows = [row for row in points if all(map(math.isfinite, row))]
        edge = [(x, high) for x, _, high in rows] + [(x, low) for x, low, _ in reversed(rows)]
        places = " ".join(f"{self.x(x):.1f},{self.y.clamped(y):.1f}" for x, y in edge)
        self.add("polygon", class_=f"band {class_}", points=places)

    def dot(self, x: float, y: float, class_: str, title: str = "", radius: float = 3.5) -> None:
        if math.isfinite(x) and math.isfinite(y):
            name = el("title", title) if title else None
            self.add(
                "circle", name, class_=f"dot {class_}", cx=self.x(x), cy=self.y.clamped(y), r=float(radius)
            )

    def interval(self, x: float, low: float, high: float, class_: str) -> None:
        """A vertical bar from low to high."""
        if math.isfinite(low) and math.isfinite(high):
            ends = {"y1": self.y.clamped(low), "y2": self.y.clamped(high)}
            self.add("line", class_=f"interval {class_}", x1=self.x(x), x2=self.x(x), **ends)

    def bar(self, x: Span, y: Span, class_: str, title: str = "") -> None:
        """A filled rectangle between values."""
        left, right = sorted((self.x(x[0]), self.x(x[1])))
        top, bottom = sorted((self.y.clamped(y[0]), self.y.clamped(y[1])))
        place = {"x": left, "y": top, "width": max(right - left, 0.0), "height": max(bottom - top, 0.0)}
        self.add("rect", el("title", title) if title else None, class_=f"bar {class_}", **place)

    def rule_x(self, value: float, text: str, class_: str = "rule") -> None:
        """A vertical line with its name at the top, on the side that has room."""
        place = self.x(value)
        self.add("line", class_=class_, x1=place, x2=place, y1=self.y.end, y2=self.y.start)
        roomy = place + LETTER * len(text) < self.width
        self.text(
            place + (4 if roomy else -4), self.y.end + 9, text, "note halo", "start" if roomy else "end"
        )

    def rule_y(self, value: float, text: str, class_: str = "rule", *, below: bool = False) -> None:
        """A level line with its name at the left."""
        height = self.y(value)
        self.add("line", class_=class_, x1=self.x.start, x2=self.x.end, y1=height, y2=height)
        if text:
            self.text(self.x.start + 4, height + (13 if below else -5), text, "note halo")

    def end_labels(self, labels: Iterable[tuple[float, str, str]], x: float | None = None) -> None:
        """Names of lines (value, text, class) at their right end, moved apart where they would touch."""
        rows = list(labels)
        places = spread([self.y.clamped(value) for value, _, _ in rows], self.y.end, self.y.start)
        left = (self.x.end if x is None else self.x(x)) + 6
        for (_, text, class_), place in zip(rows, places, strict=True):
            self.text(left, place + 4, text, f"label {class_}")

    def hover(self, rows: Sequence[tuple[float, str]]) -> None:
        """Invisible columns, one around each x, that say what is there."""
        centers = [self.x(x) for x, _ in rows]
        for index, (_, text) in enumerate(rows):
            left = (centers[index - 1] + centers[index]) / 2 if index else self.x.start
            last = index + 1 == len(rows)
            right = self.x.end if last else (centers[index] + centers[index + 1]) / 2
            place = {"x": left, "y": self.y.end, "width": max(right - left, 0.0)}
            self.add("rect", el("title", text), class_="hit", height=self.y.start - self.y.end, **place)

    def svg(self, description: str) -> Markup:
        """The finished picture; the description is what a screen reader says."""
        box = f"0 0 {self.width:.0f} {self.height:.0f}"
        return el("svg", self.marks, viewBox=box, role="img", aria_label=description, class_="chart")
