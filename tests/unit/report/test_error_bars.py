"""Bars are 95% intervals by Student's t of the numbers behind each point; quantiles are from tables."""

from dataclasses import dataclass

import pytest
from made_records import make_run

from unio4_lib.methods.unio4.improvement_section import improvement_section
from unio4_lib.report.chart import Chart
from unio4_lib.report.online_section import online_section
from unio4_lib.report.phases import interval_of
from unio4_lib.report.record import RunRecord

STUDENT = {3: 4.302653, 4: 3.182446, 5: 2.776445, 10: 2.262157, 20: 2.093024}  # numbers: t at 0.975


@dataclass(frozen=True)
class Bar:
    """One that was drawn, in the units of its axis."""

    low: float
    high: float
    color: str
    axis: tuple[float, float]

    @property
    def reach(self) -> float:
        return (self.high - self.low) / 2


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    drawn: list[Bar] = []

    def interval(chart: Chart, x: float, low: float, high: float, class_: str) -> None:
        drawn.append(Bar(low, high, class_.split()[0], (chart.y.low, chart.y.high)))

    monkeypatch.setattr(Chart, "interval", interval)
    return drawn


def with_settings(**changed: int) -> RunRecord:
    """A run whose settings, section__name, are these; a count of 0 is one that the run did not keep."""
    record = make_run(curve=[[0, 200.0, 4.0], [20_000, 150.0, 4.0], [100_000, 300.0, 4.0]])
    for key, value in changed.items():
        section, name = key.split("__")
        record.config[section][name] = value
        if not value:
            del record.config[section][name]
    return record


def all_hold(drawn: list[Bar]) -> bool:
    return all(bar.axis[0] <= bar.low < bar.high <= bar.axis[1] for bar in drawn)


@pytest.mark.parametrize(("starts", "count"), [(4, 4), (20, 20), (0, 10)])
def test_bars_of_the_gate_reach_over_its_starts(starts: int, count: int, bars: list[Bar]) -> None:
    record = with_settings(improve__starts=starts)
    for entry in record.decisions:
        entry.stderr = 2.0
    improvement_section(record)
    gate = [bar for bar in bars if bar.color == "c-offline"]
    assert len(gate) == 2 * len(record.decisions)  # drawn for screens and for phones
    assert [bar.reach for bar in gate] == pytest.approx([2.0 * STUDENT[count]] * len(gate), abs=1e-4)
    assert all_hold(gate)


@pytest.mark.parametrize(("episodes", "count"), [(3, 3), (5, 5), (200, 20), (0, 10)])
def test_bars_of_true_returns_reach_over_their_episodes(episodes: int, count: int, bars: list[Bar]) -> None:
    """At most 20 are behind each, however many the last evaluation has."""
    improvement_section(with_settings(evaluate__episodes=episodes))
    truths = [bar for bar in bars if bar.color == "c-clones"]
    assert len(truths) == 2 * 8
    assert [bar.reach for bar in truths] == pytest.approx([2.0 * STUDENT[count]] * len(truths), abs=1e-4)
    assert all_hold(truths)


@pytest.mark.parametrize(("episodes", "count"), [(5, 5), (20, 20), (0, 10)])
def test_bars_of_the_online_curve_reach_over_the_episodes_of_a_look(
    episodes: int, count: int, bars: list[Bar]
) -> None:
    record = with_settings(finetune__evaluate_episodes=episodes)
    reach = 4.0 * STUDENT[count]
    assert interval_of(record.curve[1], record) == pytest.approx((150.0 - reach, 150.0 + reach), abs=1e-4)
    online_section(record)
    online = [bar for bar in bars if bar.color == "c-online"]
    assert len(online) == 2 * len(record.curve)
    assert [bar.reach for bar in online] == pytest.approx([reach] * len(online), abs=1e-4)
    assert all_hold(online)
