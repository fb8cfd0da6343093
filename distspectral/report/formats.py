"""Numbers as people write them: 70,000; 1.5 GiB; 2 min 5 s."""

from __future__ import annotations

import math
from collections.abc import Sequence

MISSING = "–"  # noqa: RUF001  (an en dash is what a table shows for no value)
"""Shown for NaN and infinity."""


def count(value: float) -> str:
    """Return a whole number with thousands separators."""
    return f"{round(value):,}" if math.isfinite(value) else MISSING


def number(value: float) -> str:
    """Return three significant digits, without an exponent between 0.0001 and a million."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = abs(float(f"{value:.2e}"))  # as rounded, so that 0.99999 counts as 1
    if magnitude >= 1000:
        return f"{value:,.0f}" if magnitude < 1e6 else f"{value:.2e}".replace("e+0", "e").replace("e+", "e")
    if magnitude < 1e-4:
        return f"{value:.1e}".replace("e-0", "e-")
    decimals = 2 - math.floor(math.log10(magnitude))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """Return a share between 0 and 1 as a percentage; all but one row never reads 100%, one row never 0%."""
    if not math.isfinite(share):
        return MISSING
    if 0 < share < 0.0005:
        return "under 0.1%"
    for decimals in (1, 2, 3, 4):
        text = f"{share:.{decimals}%}"
        if share >= 1 or not text.startswith("100"):
            return text.replace(".0%", "%")
    return "over 99.9999%"


def column(values: Sequence[float]) -> list[str]:
    """Return the numbers of a table column with the same decimals, three significant digits for the largest."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 0
    return [f"{value:,.{decimals}f}" if math.isfinite(value) else MISSING for value in values]


def n_bytes(value: float) -> str:
    """Return a size in the largest binary unit that keeps it at one or above."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller_size, smaller_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = (whole % size) // smaller_size
            return f"{whole // size:,} {name} {rest} {smaller_name}" if rest else f"{whole // size:,} {name}"
    return f"{whole} s"
