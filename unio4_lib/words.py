"""Numbers as people read them."""

import math
from collections.abc import Callable
from functools import cache

from unio4_lib.student import student_quantile

NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
UNKNOWN = "\N{EN DASH}"
KILO, MEGA, GIGA = 1e3, 1e6, 1e9
MANY = 10_000  # numbers: more change the quantile by less than a thousandth, and its sum has as many terms
MINUTE, HOUR = 60, 3600


@cache
def interval_factor(count: int) -> float:
    """Standard errors on each side of a 95% interval of the mean of so many numbers."""
    return student_quantile(0.975, min(max(1, count - 1), MANY))


def number(value: float | None) -> str:
    """About three significant digits: 1,988 · 62.4 · 0.663 · 1.2e-5."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size != 0 and size < 1e-3:
        text = f"{size:.1e}".replace("e-0", "e-")
    else:
        digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3
        text = f"{size:,.{digits}f}"
    if size == int(size) and "." in text:
        text = text.rstrip("0").rstrip(".")
    return MINUS + text if value < 0 and text.strip("0.") else text


def ratio(value: float | None) -> str:
    """Two decimals: 1.63."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2f}".replace("-", MINUS)


def error(stderr: float, mean: float) -> str:
    """The error of a mean, with no more digits than the mean shows: 88 · 0.5."""
    if not math.isfinite(stderr):
        return UNKNOWN
    if stderr == 0:
        return "0"
    digits = 0 if abs(mean) >= 100 else 1 if abs(mean) >= 10 else 2
    return f"{stderr:.1g}" if 0 < stderr < 10**-digits else f"{stderr:,.{digits}f}"


def with_error(mean: float | None, stderr: float | None) -> str:
    """1,988 ± 88, on one line."""
    if mean is None or stderr is None:
        return number(mean)
    return f"{number(mean)}{NO_BREAK}±{NO_BREAK}{error(stderr, mean)}"


def percent(share: float | None) -> str:
    """24%; 0.4% or 99.2% where whole percents would say too little."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    value = 100 * share
    if 0 < abs(value) < 0.05:
        return "<0.1%"
    text = f"{value:.1f}" if 0 < abs(value) < 2 or 98 < value < 100 else f"{value:.0f}"
    return f"{text}%".replace("-", MINUS)


def count(value: float) -> str:
    """100,000."""
    return f"{value:,.0f}".replace("-", MINUS)


def axis_format(largest: float) -> Callable[[float], str]:
    """How to write the ticks of an axis that reaches that far: one unit for all of them, 0 · 50k · 100k."""
    units = ((2 * GIGA, GIGA, "G"), (2 * MEGA, MEGA, "M"), (10 * KILO, KILO, "k"))
    unit, letter = next(((unit, letter) for border, unit, letter in units if largest >= border), (1.0, ""))

    def text(value: float) -> str:
        size = abs(value) / unit
        plain = f"{size:,.0f}" if size >= KILO else f"{size:.4g}".replace("e-0", "e-")
        return (MINUS if value < 0 else "") + plain + (letter if value else "")

    return text


def duration(seconds: float) -> str:
    """0.4 s · 44 s · 1 min 21 s · 2 h 05 min."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.1f} s"
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} min"


def memory(size: float) -> str:
    """959 MB."""
    if size <= 0:
        return UNKNOWN
    return f"{size / GIGA:.2g} GB" if size >= GIGA else f"{size / MEGA:.0f} MB"


def listed(parts: list[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
