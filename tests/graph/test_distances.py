from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import sparse

from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.graph.distances import as_queries, under_metric
from distspectral.graph.knn import knn_graph
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors, FleetingVectors, MappedVectors
from tests.datasets import packed

ROWS = np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32) * np.linspace(1, 9, 400)[:, None]
UNIFORM = AffinityConfig(kind="uniform")


def neighbors(rows, **changes):
    graph, _ = knn_graph(ArrayVectors(rows), GraphConfig(n_neighbors=6, **changes), UNIFORM)
    return graph.block(0, len(rows))[0]


def test_cosine_neighbours_have_the_smallest_angles():
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    similar = unit.astype(np.float64) @ unit.T
    np.fill_diagonal(similar, -np.inf)
    expected = np.argsort(-similar, axis=1)[:, :6]
    assert np.mean(np.sort(neighbors(ROWS, metric="cosine")) == np.sort(expected)) > 0.999


def test_inner_product_neighbours_have_the_largest_products():
    products = ROWS.astype(np.float64) @ ROWS.T
    np.fill_diagonal(products, -np.inf)
    expected = np.argsort(-products, axis=1)[:, :6]
    assert np.mean(np.sort(neighbors(ROWS, metric="inner_product")) == np.sort(expected)) > 0.999


@pytest.mark.parametrize(("search", "share"), [({}, 0.999), ({"method": "cells"}, 0.95)])
def test_centered_cosine_neighbours_have_the_smallest_angles_around_the_mean(search, share):
    far = ROWS + 20
    expected = neighbors(far - far.mean(0, dtype=np.float64), metric="cosine")
    assert np.mean(neighbors(far, metric="centered_cosine", **search) == expected) > share
    assert np.mean(neighbors(far, metric="cosine") == expected) < 0.5


@pytest.mark.parametrize("metric", ["cosine", "centered_cosine"])
@pytest.mark.parametrize("made", [ArrayVectors, lambda rows: SparseVectors(sparse.csr_matrix(rows))])
def test_vectors_without_a_direction_have_each_other(metric, made, monkeypatch):
    monkeypatch.setattr(SparseVectors, "is_thin", True)
    rows = np.vstack([ROWS, -ROWS]) + (0 if metric == "cosine" else 7)
    rows[10:20] = rows[410:420] = rows.mean(0) * (metric != "cosine")
    graph, _ = knn_graph(made(rows), GraphConfig(n_neighbors=6, metric=metric), UNIFORM)
    found = graph.block(0, 800)[0]
    assert set(found[10]) <= {*range(11, 20), *range(410, 420)}
    assert not np.isin(found[30:400], [*range(10, 20), *range(410, 420)]).any()


def test_inner_product_in_cells_is_refused():
    with pytest.raises(ValidationError, match="inner_product has no cells"):
        GraphConfig(metric="inner_product", method="cells")


@pytest.mark.parametrize("open_rows", [MappedVectors, FleetingVectors])
def test_angles_and_products_are_those_of_the_rows_before_the_origin_was_taken_away(tmp_path: Path, open_rows) -> None:
    rows = ROWS.astype(np.float64) + np.array([1e4, 0, -3e4, 0, 0])
    vectors = open_rows(packed(tmp_path, rows))
    assert vectors.origin is not None
    unit = under_metric(vectors, "cosine")
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.block(0, 400), expected, atol=1e-7)
    np.testing.assert_allclose(unit.gather(np.array([7, 3])), expected[[7, 3]], atol=1e-7)
    around = under_metric(vectors, "centered_cosine")
    expected = rows - rows.mean(0)
    np.testing.assert_allclose(
        around.block(0, 400), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6
    )
    level = under_metric(vectors, "inner_product")
    np.testing.assert_allclose(as_queries(level, 0, 400)[:, :5], rows, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(level.block(0, 400), axis=1), np.linalg.norm(rows, axis=1).max())
