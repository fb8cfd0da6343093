"""Principal components are those of a dense decomposition, however rows are held, cut or handed out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from distspectral.embedding import pca
from distspectral.embedding.forward import forward, in_blocks
from distspectral.embedding.pca import principal_components
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors

RNG = np.random.default_rng(0)
ROWS = (RNG.normal(size=(120, 40)) * np.linspace(3, 0.5, 40) + 5).astype(np.float32)
THIN = sparse.random(120, 400, density=0.02, random_state=0, dtype=np.float32)


def scores(rows: np.ndarray, n_components: int) -> np.ndarray:
    """Return the coordinates of rows in their components, in units of their scale."""
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:n_components]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    found: np.ndarray = centred @ axes.T / np.sqrt(np.square(centred).mean())
    return found


@pytest.fixture(params=["covariance", "sample"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "sample":  # of all rows
        monkeypatch.setattr(pca, "WIDEST", 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("vectors", "rows"),
    [(ArrayVectors(ROWS), ROWS), (SparseVectors(THIN), THIN.toarray())],
    ids=["dense", "sparse"],
)
def test_components_are_those_of_a_dense_decomposition(vectors: Any, rows: np.ndarray) -> None:
    model = principal_components(vectors, 7)
    np.testing.assert_allclose(in_blocks(model.encoder, vectors), scores(rows, 7), atol=2e-4)
    rebuilt = forward(model.decoder, in_blocks(model.encoder, vectors))
    centred = (rows - rows.mean(0)) / vectors.scale
    kept = 1 - np.square(rebuilt - centred).sum() / np.square(centred).sum()
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    assert kept == pytest.approx(values[:7].sum() / values.sum(), rel=1e-4)


def test_neither_tasks_nor_the_order_in_which_they_end_change_the_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca, "LEAST_ROWS", 16)

    def backwards(function: Any, items: Any, description: str, **_: Any) -> Any:
        assert len(items) == 8
        return (function(item) for item in reversed(items))

    one, other = (principal_components(ArrayVectors(ROWS), 5, mapper=mapper) for mapper in (pca.local_map, backwards))
    for name, found in one.state_dict().items():
        assert found.equal(other.state_dict()[name]), name
    np.testing.assert_allclose(in_blocks(one.encoder, ArrayVectors(ROWS)), scores(ROWS, 5), atol=2e-4)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("n_rows", "expected"), [(9, 8), (120, 40)])
def test_there_are_no_more_components_than_features_and_differences(n_rows: int, expected: int) -> None:
    rows = ROWS[:n_rows]
    assert principal_components(ArrayVectors(rows), 50).encoder.head.weight.shape == (expected, 40)


@pytest.mark.usefixtures("way")
def test_directions_in_which_rows_do_not_differ_are_empty() -> None:
    rows = np.outer(RNG.normal(size=30), np.ones(6)).astype(np.float32)
    outputs = in_blocks(principal_components(ArrayVectors(rows), 3).encoder, ArrayVectors(rows))
    np.testing.assert_allclose(np.abs(outputs[:, 0]).std(), np.abs(scores(rows, 1)).std(), rtol=1e-4)
    np.testing.assert_array_equal(outputs[:, 1:], 0)


def test_a_sample_of_wide_rows_finds_what_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pca, "WIDEST", 30)
    monkeypatch.setattr(pca, "MOST_SAMPLED", 200)
    rows = (RNG.normal(size=(500, 3)) @ RNG.normal(size=(3, 40)) * 9 + RNG.normal(size=(500, 40))).astype(np.float32)
    outputs = in_blocks(principal_components(ArrayVectors(rows), 3).encoder, ArrayVectors(rows))
    overlap = np.linalg.svd(np.linalg.qr(outputs)[0].T @ np.linalg.qr(scores(rows, 3))[0], compute_uv=False)
    assert overlap.min() > 0.99
