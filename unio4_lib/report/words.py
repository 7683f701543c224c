"""Numbers as people read them."""

import math

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "\N{EN DASH}"
KILO, MEGA, GIGA = 1e3, 1e6, 1e9
MINUTE, HOUR = 60, 3600
INTERVAL_FACTOR = 1.96  # standard errors on each side of a 95% interval


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


def with_error(mean: float, stderr: float | None) -> str:
    """1,988 ± 88; the error is shown to the unit of the mean."""
    return number(mean) if stderr is None else f"{number(mean)} ± {number(stderr)}"


def percent(share: float | None) -> str:
    """24%; 0.4% where whole percents would say nothing."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    value = 100 * share
    text = f"{value:.1f}" if 0 < abs(value) < 2 else f"{value:.0f}"
    return f"{text}%".replace("-", MINUS)


def count(value: float) -> str:
    """100,000."""
    return f"{value:,.0f}".replace("-", MINUS)


def short(value: float) -> str:
    """For axes: 0 · 250 · 1.5k · 300k · 2M · 0.05."""
    size = abs(value)
    for unit, letter in ((GIGA, "G"), (MEGA, "M"), (10 * KILO, "k")):
        if size >= unit:
            text = f"{size / (KILO if letter == 'k' else unit):.3g}{letter}"
            break
    else:
        text = f"{size:,.0f}" if size >= KILO else f"{size:.4g}"
    return MINUS + text if value < 0 else text


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
