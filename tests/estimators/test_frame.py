"""Rows that float32 would not tell apart as they are: far from zero, tiny, huge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from distspectral import DSCL, SpectralNet
from distspectral.errors import ConstantDataError, NonFiniteRowError

FAST: dict[str, Any] = {
    "representation": "input",
    "affinity_space": "euclidean",
    "hidden": (32,),
    "batch_size": 128,
    "max_steps": 100,
    "random_state": 0,
}
RNG = np.random.default_rng(0)
GROUP = np.repeat([0, 1], 120)
ROWS = np.stack([20.0 * GROUP, np.zeros(240)], axis=1) + RNG.standard_normal((240, 2))

FAR = {
    "Unix seconds": ROWS + np.array([1.7e9, 0]),
    "Unix milliseconds": ROWS * [1000, 1] + np.array([1.7e12, 0]),
    "all columns": ROWS + 1e9,
    "negative": ROWS - 1e9,
    "1e-7 degrees": np.round(ROWS * 100).astype(np.int64) + np.array([481_374_300, 115_754_900]),
    "nanoseconds": np.round(ROWS * 100).astype(np.int64) + np.array([1_700_000_000_000_000_001, 0]),
    "cents": ROWS / 100 + 1e12,
    "float32": (ROWS + 1e6).astype(np.float32),
}
SIZES = (1e-310, 1e-100, 1e-25, 1e18, 1e30, 1e100)


@pytest.mark.parametrize("kind", [*FAR, *SIZES])
def test_groups_are_found_wherever_and_however_large_they_are(kind: Any) -> None:
    rows = FAR[kind] if kind in FAR else ROWS * kind
    model = SpectralNet(2, **FAST).fit(rows)
    assert adjusted_rand_score(GROUP, model.labels_) == 1
    np.testing.assert_array_equal(model.predict(rows), model.labels_)
    if kind != "nanoseconds":  # which torch takes for float64, in steps of 256
        embedding = model.model_(torch.from_numpy(rows))[0]
        np.testing.assert_allclose(embedding.detach(), model.embedding_, atol=1e-5)


@pytest.mark.parametrize("exponent", [-83, 60, 400])
def test_a_power_of_two_changes_no_bit_of_the_embedding(exponent: int) -> None:
    rows = ROWS.astype(np.float32).astype(np.float64)
    expected, found = (SpectralNet(2, **FAST).fit(x) for x in (rows, rows * 2.0**exponent))
    np.testing.assert_array_equal(found.embedding_, expected.embedding_)
    np.testing.assert_array_equal(found.labels_, expected.labels_)


@pytest.mark.parametrize("value", [2e19, 1e300, -1e10])
def test_a_row_too_far_for_the_others_is_named(value: float) -> None:
    far = ROWS.copy()
    far[17, 1] = value
    model = SpectralNet(2, **FAST)
    with pytest.raises(NonFiniteRowError, match=r"X: row 17, feature 1: .* is beyond float32 beside the other rows"):
        model.fit(far)
    model.fit(ROWS)
    for door in (model.predict, model.transform):
        with pytest.raises(NonFiniteRowError, match="X: row 17, feature 1"):
            door(far)
    with pytest.raises(NonFiniteRowError, match="X: row 17, feature 1"):
        model.predict(sparse.csr_matrix(far))


def test_a_saved_model_keeps_its_origin(tmp_path: Path) -> None:
    rows = FAR["Unix seconds"]
    for model in (
        SpectralNet(2, **FAST).fit(rows),
        DSCL(2, hidden=(16,), max_steps=20, random_state=0).fit(rows, GROUP),
    ):
        model.save(tmp_path / "model.pt")
        again = type(model).load(tmp_path / "model.pt")
        np.testing.assert_array_equal(again.transform(rows), model.transform(rows))
        raw = torch.from_numpy(rows)
        np.testing.assert_array_equal(
            *(np.asarray(torch.as_tensor(one.model_(raw)[0]).detach()) for one in (again, model))
        )


@pytest.mark.parametrize("kind", ["Unix seconds", "all columns", 1e-25, 1e30])
def test_a_metric_is_learned_wherever_and_however_large_rows_are(kind: Any) -> None:
    rows = FAR[kind] if kind in FAR else ROWS * kind
    points = DSCL(2, hidden=(16,), max_steps=60, random_state=0).fit(rows, GROUP).transform(rows)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cosines = points @ points.T
    assert cosines[:120, :120].mean() > 0.95
    assert cosines[:120, 120:].mean() < 0.85


def test_sparse_rows_of_any_size_are_scaled() -> None:
    rows = sparse.csr_matrix(np.hstack([ROWS, np.zeros((240, 3))]) * 1e-30)
    model = SpectralNet(2, **FAST).fit(rows)
    assert adjusted_rand_score(GROUP, model.labels_) == 1
    far = rows.tolil()
    far[5, 4] = 1.0
    with pytest.raises(NonFiniteRowError, match="X: row 5, feature 4: 1 is beyond float32"):
        model.predict(far.tocsr())


def test_sparse_rows_meet_a_model_of_dense_ones_far_away() -> None:
    model = SpectralNet(2, **FAST).fit(FAR["Unix seconds"])
    np.testing.assert_array_equal(model.predict(sparse.csr_matrix(FAR["Unix seconds"])), model.labels_)


@pytest.mark.parametrize("value", [1.7e9, 1e-200, 1e200])
def test_equal_rows_are_equal_wherever_they_are(value: float) -> None:
    with pytest.raises(ConstantDataError, match="all 30 rows are equal"):
        SpectralNet(2, **FAST).fit(np.full((30, 2), value))


def test_a_row_that_hides_the_others_is_warned_of_by_name() -> None:
    rows = np.vstack([ROWS, [[3e7, 0]]])
    with pytest.warns(UserWarning, match=r"^X: row 240, and perhaps others, lies so far from the rest"):
        SpectralNet(2, **FAST).fit(rows)
    with pytest.warns(UserWarning, match=r"^X: row 240, and"):
        DSCL(max_steps=2, random_state=0).fit(rows, [*GROUP, 1])


DOMINATED = np.random.default_rng(0).standard_normal((60, 5)) * [1, 1, 9, 1, 1]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (DOMINATED, "feature 2"),
        (sparse.csr_matrix(DOMINATED), "feature 2"),
        (pandas.DataFrame(DOMINATED, columns=list("abcde")), "'c'"),
    ],
    ids=["array", "sparse", "frame"],
)
def test_a_feature_that_decides_who_is_near_is_warned_of_by_name(rows: Any, name: str) -> None:
    with pytest.warns(UserWarning, match=f"^X: {name} alone has 9[0-9]% of the variance"):
        SpectralNet(2, **FAST).fit(rows)
    if not sparse.issparse(rows):
        with pytest.warns(UserWarning, match=f"^X: {name} alone"):
            DSCL(max_steps=2, random_state=0).fit(rows, np.repeat([0, 1], 30))
