from __future__ import annotations

import functools

import numpy as np
import pytest

from distspectral.storage.rows.moments import COPY_BYTES, DominantFeature, Moments

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("cuts", [[1, 2, 50], [99], [10, 11, 12, 13]])
def test_merged_parts_equal_the_whole(cuts: list[int]) -> None:
    rows = RNG.standard_normal((100, 5)) * [1, 2, 3, 4, 5] + [0, 10, 0, -10, 0]
    merged = functools.reduce(Moments.merge, (Moments.of(part) for part in np.split(rows, cuts)))
    np.testing.assert_allclose(merged.mean, rows.mean(axis=0), rtol=1e-13, atol=1e-13)
    assert merged.variance == pytest.approx(rows.var(axis=0).mean(), rel=1e-13)
    assert merged.n_rows == 100


def test_a_large_offset_does_not_cost_the_variance() -> None:
    noise = RNG.standard_normal((1000, 3)) * 1e-3
    assert Moments.of(noise + 1e6).variance == pytest.approx((noise + 1e6).var(axis=0).mean(), rel=1e-9)


@pytest.mark.parametrize("copy_bytes", [64, COPY_BYTES])
def test_equal_rows_have_a_variance_of_exactly_zero(copy_bytes: int) -> None:
    rows = np.full((1001, 3), 0.1, dtype=np.float32)
    assert Moments.of(rows, copy_bytes).merge(Moments.of(rows[:7])).variance == 0.0


def test_float16_rows_are_summed_in_float64() -> None:
    rows = np.full((4096, 2), 1000, dtype=np.float16)
    rows[0] = 0
    assert Moments.of(rows).mean[0] == pytest.approx(1000 * 4095 / 4096, rel=1e-14)


@pytest.mark.parametrize(
    ("variances", "found"),
    [([1, 1, 1, 16, 1], (3, 16 / 20)), ([1, 1, 1, 8, 1], None), ([1, 1, 16, 1], None), ([0] * 5, None)],
    ids=["most", "two thirds", "few features", "constant"],
)
def test_a_feature_with_most_of_the_variance_is_dominant(
    variances: list[float], found: tuple[int, float] | None
) -> None:
    assert DominantFeature.of(np.asarray(variances, float)) == found


def test_each_feature_has_a_variance_of_its_own() -> None:
    rows = RNG.standard_normal((100, 3)) * [1, 10, 100]
    merged = Moments.of(rows[:30]).merge(Moments.of(rows[30:]))
    np.testing.assert_allclose(merged.variances, rows.var(axis=0), rtol=1e-12)
