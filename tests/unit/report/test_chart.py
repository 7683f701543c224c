"""The plotting kit: scales, round ticks, labels that do not touch, marks where they belong."""

import math
import re

import numpy as np
import pytest

from unio4_lib.report.chart import LABEL_GAP, Chart, Scale, span, spread, ticks
from unio4_lib.report.markup import Markup, el, markup


def test_a_scale_maps_ends_to_ends() -> None:
    scale = Scale(10.0, 20.0, 100.0, 300.0)
    assert [scale(10.0), scale(15.0), scale(20.0)] == [100.0, 200.0, 300.0]
    assert scale.clamped(99.0) == 300.0


@pytest.mark.parametrize("seed", range(40))
def test_ticks_are_round_inside_and_about_as_many(seed: int) -> None:
    g = np.random.default_rng(seed)
    low = float(g.normal() * 10 ** g.uniform(-3, 6))
    high = low + float(10 ** g.uniform(-3, 6))
    wanted = int(g.integers(3, 9))
    found = ticks(low, high, wanted)
    assert 1 <= len(found) <= 2 * wanted
    assert all(low - 1e-6 * (high - low) <= value <= high + 1e-6 * (high - low) for value in found)
    steps = np.diff(found)
    if len(steps):
        mantissa = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-9)
        assert min(abs(mantissa - allowed) for allowed in (1, 2, 2.5, 5)) < 1e-3
        assert np.allclose(steps, steps[0])


def test_a_span_holds_everything_and_never_is_empty() -> None:
    low, high = span([3.0, 8.0, float("nan")])
    assert low < 3.0
    assert high > 8.0
    assert span([3.0, 8.0], zero=True)[0] == 0.0
    assert span([-3.0], zero=True)[1] == 0.0
    for values in ([], [0.0], [5.0], [-5.0, -5.0]):
        low, high = span(values)
        assert low < high


def test_labels_are_moved_apart_and_stay_inside() -> None:
    for seed in range(50):
        places = np.random.default_rng(seed).uniform(0, 200, size=8).tolist()
        moved = spread(places, 0.0, 200.0)
        order = np.argsort(places)
        assert (np.diff(np.asarray(moved)[order]) >= LABEL_GAP - 1e-9).all()
        assert min(moved) >= -1e-9
        assert max(moved) <= 200.0 + 1e-9
    assert spread([10.0, 100.0], 0.0, 200.0) == [10.0, 100.0]  # nothing touches: nothing moves


def test_marks_stand_where_the_values_are() -> None:
    chart = Chart((200, 100), (0.0, 10.0), (0.0, 1.0), left=50, right=50, top=0, bottom=0)
    chart.dot(5.0, 0.25, "c-online", "here", 4)
    chart.line([(0.0, 0.0), (5.0, float("nan")), (10.0, 1.0)], "c-data")
    picture = chart.svg("two marks")
    assert 'cx="100" cy="75"' in picture
    assert 'points="50.0,100.0 150.0,0.0"' in picture  # what is not finite is left out
    assert "<title>here</title>" in picture
    assert 'role="img" aria-label="two marks"' in picture


def test_hover_columns_cover_the_axis_without_a_gap() -> None:
    chart = Chart((300, 100), (0.0, 10.0), (0.0, 1.0))
    chart.hover([(0.0, "a"), (2.0, "b"), (10.0, "c")])
    found = [
        (float(left), float(width))
        for left, width in re.findall(r'x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', "".join(chart.marks))
    ]
    assert len(found) == 3
    ends = [left + width for left, width in found]
    assert found[0][0] == pytest.approx(chart.x.start)
    assert ends[-1] == pytest.approx(chart.x.end, abs=0.2)
    assert [left for left, _ in found[1:]] == pytest.approx(ends[:-1], abs=0.2)


def test_text_is_escaped_unless_it_was_made_here() -> None:
    assert el("p", "<b>", el("i", "x"), title='"') == '<p title="&quot;">&lt;b&gt;<i>x</i></p>'
    assert markup(["a<", Markup("<br>"), None]) == "a&lt;<br>"
    assert el("img", alt="x") == '<img alt="x">'
    assert el("a", data_x=None, class_="c") == '<a class="c"></a>'
