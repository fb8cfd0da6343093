from __future__ import annotations

import math

import pytest

from distspectral.report import formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0042, "4 ms"),
        (3.14, "3.1 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (125.2, "2 min 5 s"),
        (3600, "1 h"),
        (7_500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (math.nan, "–"),  # noqa: RUF001
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**29, "1.5 GiB"), (2**42, "4.0 TiB")],
)
def test_sizes_have_binary_units(size: int, text: str) -> None:
    assert formats.n_bytes(size) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.123456, "0.123"),
        (0.1, "0.1"),
        (0.99999, "1"),
        (100, "100"),
        (-2.5, "-2.5"),
        (70_000, "70,000"),
        (1.5e7, "1.50e7"),
        (2e-7, "2.0e-7"),
        (math.inf, "–"),  # noqa: RUF001
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100%"), (0.9998, "99.98%"), (1 - 1e-9, "over 99.9999%"), (0.5, "50%"), (1e-6, "under 0.1%"), (0, "0%")],
)
def test_percentages_do_not_claim_all_or_nothing(share: float, text: str) -> None:
    assert formats.percent(share) == text


def test_columns_share_their_decimals() -> None:
    assert formats.column([0.36, 0.4567, math.nan]) == ["0.360", "0.457", "–"]  # noqa: RUF001
    assert formats.column([]) == []
    assert formats.column([1234.5, 0.0]) == ["1,234", "0"]
