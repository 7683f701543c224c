"""Numbers as people read them."""

import pytest

from unio4_lib import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1988.07, "1,988"),
        (62.43, "62.4"),
        (0.66268, "0.663"),
        (-1234567.0, "−1,234,567"),
        (0.0, "0"),
        (3.0, "3"),
        (0.000012, "1.2e-5"),
        (-0.4, "−0.400"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("mean", "stderr", "text"),
    [
        (1988.07, 88.4, "1,988 ± 88"),
        (3246.6, 0.54, "3,247 ± 0.5"),
        (3246.6, 0.0, "3,247 ± 0"),
        (0.123, 0.0456, "0.123 ± 0.05"),
        (52.25, 3.04, "52.2 ± 3.0"),
        (7.0, None, "7"),
    ],
)
def test_an_error_has_no_more_digits_than_its_mean(mean: float, stderr: float | None, text: str) -> None:
    assert words.with_error(mean, stderr).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.24, "24%"), (0.004, "0.4%"), (0.0, "0%"), (1.0, "100%"), (0.992, "99.2%"), (0.00001, "<0.1%")],
)
def test_percent(share: float, text: str) -> None:
    assert words.percent(share) == text


def test_an_axis_has_one_unit() -> None:
    assert [words.axis_format(14000)(value) for value in (0, 5000, 12500)] == ["0", "5k", "12.5k"]
    assert [words.axis_format(3300)(value) for value in (0, 500, 3000)] == ["0", "500", "3,000"]
    assert words.axis_format(4e6)(-2e6) == "−2M"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (43.6, "44 s"), (59.7, "1 min 00 s"), (81, "1 min 21 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_memory() -> None:
    assert [words.memory(size) for size in (0, 958.8e6, 2.34e9)] == ["–", "959 MB", "2.3 GB"]
