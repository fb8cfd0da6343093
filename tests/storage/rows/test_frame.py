from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from distspectral.storage.rows.frame import Frame
from tests.datasets import blobs

RNG = np.random.default_rng(0)
SMALL = np.stack([np.repeat([0.0, 20.0], 100), np.zeros(200)], axis=1) + RNG.standard_normal((200, 2))
"""Two groups, 20 apart in the first feature."""

PLAIN = {
    "normal": SMALL.astype(np.float32),
    "float64": SMALL,
    "pixels": RNG.integers(0, 256, (200, 9)).astype(np.uint8),
    "unit length": blobs(200, 64)[0] / np.linalg.norm(blobs(200, 64)[0], axis=1, keepdims=True),
    "a constant column": np.hstack([SMALL, np.ones((200, 1))]),
    "one-hot": np.eye(7)[RNG.integers(0, 7, 200)],
    "counts": RNG.poisson(RNG.gamma(0.3, 9, (1, 50)), (200, 50)),
    "heavy tails": np.exp(3 * RNG.standard_normal((200, 4))),
}

LOSING: dict[str, Any] = {
    "Unix seconds": SMALL + np.array([1.7e9, 0]),
    "Unix milliseconds": SMALL * [1000, 1] + np.array([1.7e12, 0]),
    "all columns far": SMALL + 1e9,
    "negative": SMALL - 1e9,
    "money in cents": SMALL / 100 + 1e12,
    "tiny and far": SMALL * 1e-9 + 1,
    "integers": np.round(SMALL * 1000).astype(np.int64) + 480_000_000,
    "float32": (SMALL + 1e6).astype(np.float32),
    **{f"times {factor:g}": SMALL * factor for factor in (1e-310, 1e-200, 1e-100, 1e-25, 1e18, 1e30, 1e100, 1e300)},
    "subnormal float32": (SMALL * 1e-38).astype(np.float32),
    "far and huge": (SMALL + 1e6) * 1e50,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_ordinary_rows_keep_their_bits(kind: str) -> None:
    frame = Frame.of(PLAIN[kind])
    assert frame.changes_nothing
    np.testing.assert_array_equal(frame.framed(PLAIN[kind]), PLAIN[kind].astype(np.float32))
    assert frame.holds(frame.framed(PLAIN[kind]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", LOSING)
def test_differences_between_rows_survive_the_cast(kind: str, dtype: Any) -> None:
    rows = LOSING[kind]
    frame = Frame.of(rows, dtype=dtype)
    assert not frame.is_plain
    assert frame.input_type == "float64"
    framed = frame.framed(rows).astype(dtype).astype(np.float64)
    exact = (rows.astype(np.float64) - rows[0].astype(np.float64)) * 2.0**-frame.exponent
    usual = np.abs(exact).max()
    digits = {"float32": 2.0**-16, "float16": 2.0**-8}[dtype]
    if "subnormal" not in kind:
        assert 2.0**-24 < usual < 2.0**24
    np.testing.assert_allclose(framed - framed[0], exact, rtol=0, atol=digits * usual)
    np.testing.assert_allclose(frame.raw(frame.framed(rows)), rows.astype(np.float64), rtol=1e-6)


def test_integers_beyond_float64_are_subtracted_as_integers() -> None:
    nanoseconds = np.round(SMALL[:, :1]).astype(np.int64) + 1_700_000_000_000_000_001
    framed = Frame.of(nanoseconds).framed(nanoseconds)
    np.testing.assert_array_equal(framed - framed[0], (nanoseconds - nanoseconds[0]).astype(np.float32))
    far_apart = np.array([[np.iinfo(np.int64).min], [np.iinfo(np.int64).max], [5]])
    assert np.isfinite(Frame(origin=np.array([2.0**62])).framed(far_apart)).all()


@pytest.mark.parametrize("exponent", [-90, 70, 700])
def test_a_power_of_two_changes_no_bit_of_the_mantissas(exponent: int) -> None:
    rows = SMALL.astype(np.float32)
    scaled = rows.astype(np.float64) * 2.0**exponent
    framed = Frame.of(scaled).framed(scaled)
    np.testing.assert_array_equal(np.frexp(framed)[0], np.frexp(rows)[0])
    assert len(np.unique(np.frexp(framed)[1][rows != 0] - np.frexp(rows)[1][rows != 0])) == 1


@pytest.mark.parametrize("kind", ["normal", "Unix seconds", "times 1e-25", "times 1e+18"])
@pytest.mark.parametrize("times", [1e9, 2e19])
def test_a_row_too_far_to_share_float32_does_not_fit_and_moves_nothing(kind: str, times: float) -> None:
    rows = (PLAIN | LOSING)[kind].astype(np.float64)
    far = rows.copy()
    far[17, 1] += times * np.ptp(rows[:, 1])
    frame, expected = Frame.of(far), Frame.of(rows)
    assert (frame.exponent, frame.is_plain) == (expected.exponent, expected.is_plain)
    framed = frame.framed(far)
    assert not frame.holds(framed)
    assert np.argwhere(frame.misfits(framed)).tolist() == [[17, 1]]
    row, feature, problem = frame.first_misfit(far, framed)
    assert (row, feature) == (17, 1)
    assert f"{far[17, 1]:g} is beyond float32 beside the other rows, expected" in problem
    others = np.delete(framed, 17, axis=0)
    assert len(np.unique(others[:, 0])) > 150


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_fit(value: float) -> None:
    rows = SMALL.astype(np.float32)
    frame = Frame.of(rows)
    rows[3, 1] = value
    assert not frame.holds(rows)
    assert frame.first_misfit(rows, rows) == (3, 1, f"found {value}, expected a finite number")


def test_a_few_far_rows_among_equal_ones_fit() -> None:
    rows = np.zeros((1000, 3))
    rows[::300] = [1e-9, 1e5, 1e12]
    frame = Frame.of(rows)
    assert frame.holds(frame.framed(rows))


@pytest.mark.parametrize(
    "rows", [np.full((50, 3), 1.7e9), 0.1 + 2e-17 * RNG.integers(-1, 2, (50, 3)), np.zeros((2, 2))]
)
def test_rows_that_differ_by_rounding_alone_stay_equal(rows: np.ndarray) -> None:
    framed = Frame.of(rows).framed(rows)
    assert len(np.unique(framed, axis=0)) == 1


def test_more_rows_of_the_same_kind_keep_the_origin() -> None:
    rows = RNG.standard_normal((4000, 3)) * [1, 50, 1e-3] + [1e9, 4e8, -1e7]
    few, all_of_them = Frame.of(rows[:500]), Frame.of(rows)
    assert few.origin is not None
    assert all_of_them.origin is not None
    assert np.abs(few.origin - all_of_them.origin).max() <= 128
    assert (few.origin % 2 == 0).all(), "of few digits, so that sums with it are exact"


def test_sparse_rows_are_scaled_and_never_moved() -> None:
    rows = sparse.random(200, 30, 0.1, "csr", random_state=0) * 1e-30
    frame = Frame.of(rows)
    assert frame.origin is None
    assert 2.0**-24 < np.abs(frame.framed(rows.data[:, None])).max() < 2.0**24
    assert Frame.of(sparse.csr_matrix(np.full((20, 2), 1e9) + np.eye(20, 2))).origin is None


@pytest.mark.parametrize("kind", ["normal", "Unix seconds", "far and huge"])
def test_a_frame_survives_json(kind: str) -> None:
    rows = (PLAIN | LOSING)[kind]
    frame = Frame.of(rows, factor=0.25)
    again = Frame.of_properties(json.loads(json.dumps(frame.properties())))
    np.testing.assert_array_equal(again.framed(rows), frame.framed(rows))
    assert (again.limit, again.factor) == (frame.limit, 0.25)


def test_the_factor_comes_first() -> None:
    rows = SMALL * 1e-12 + 5
    frame = Frame.of(rows, factor=1e12)
    assert frame.origin is not None
    np.testing.assert_allclose(frame.framed(rows) + frame.origin, rows * 1e12, rtol=1e-12)
