"""Recall through a FAISS that treats halves as the real one does; see :mod:`tests.graph.search.fake_faiss`."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from distspectral.errors import SearchFailedError
from distspectral.graph.search.faiss_search import GpuSearch
from distspectral.graph.search.halves import CellOnGpu, halves
from distspectral.graph.search.local import CHECK_ROWS
from tests.datasets import blobs
from tests.graph.search.fake_faiss import FakeFaiss

DIMS = (10, 96, 768)
K = 15


def spread(n_rows, dim):
    """Return rows in all directions whose norms spread over three decades."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_rows, dim))
    return (rows * 10 ** rng.uniform(0, 3, (n_rows, 1)) / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


def near(n_rows, dim):
    """Return rows in clusters a hundred times as far apart as they are wide."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((3, dim))
    return (centers[rng.integers(0, 3, n_rows)] + 0.01 * rng.standard_normal((n_rows, dim))).astype(np.float32)


def few_huge(n_rows, dim):
    """Return rows of which three are ten million times as long as the others."""
    rows = blobs(n_rows, dim)[0]
    rows[:3] *= 1e7
    return rows


KINDS = {"blobs": lambda n_rows, dim: blobs(n_rows, dim)[0], "spread": spread, "near": near, "few huge": few_huge}


def truth(rows, k=K):
    distances = cdist(rows.astype(np.float64), rows.astype(np.float64), "sqeuclidean")
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def recall(found, rows, k=K):
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), truth(rows, k).tolist(), strict=True)])


def nearest_in_cell(rows, n_neighbors, of_check, search):
    return CellOnGpu(rows, n_neighbors, of_check).nearest(search)


def sample(n_rows, count=CHECK_ROWS):
    return np.sort(np.random.default_rng(1).permutation(n_rows)[:count])


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_keeps_its_neighbours(kind, dim):
    rows, fake = KINDS[kind](1000, dim), FakeFaiss()
    positions, squared, hits, tries = nearest_in_cell(rows, K, sample(1000), GpuSearch(fake))
    assert recall(positions, rows) >= 0.985
    assert tries == CHECK_ROWS * K
    assert hits >= 0.985 * tries
    assert (np.diff(squared, axis=1) >= 0).all()
    dtypes = [dtype for dtype, _, _ in fake.asked]
    assert dtypes == ([np.float16, np.float32] if kind == "few huge" else [np.float16])


@pytest.mark.parametrize("dim", DIMS)
def test_distances_of_halves_find_nothing_once_a_value_reaches_256(dim):
    """Why products are asked for: this is what values scaled to 1,024 came to."""
    rows = blobs(1000, dim)[0]
    rows -= rows.mean(axis=0)
    scaled = (rows * (1024 / np.abs(rows).max())).astype(np.float16)
    positions = FakeFaiss().knn_gpu(object(), scaled, scaled, 2 * (K + 9))[1]
    assert recall(positions, rows) < 0.05


def test_products_of_halves_order_rows_as_distances_do():
    rows = near(300, 96)
    queries, base = halves(torch.from_numpy(rows))
    assert queries.dtype == base.dtype == torch.float16
    assert queries.shape == (300, 104), "96 + 2, aligned"
    products = (queries.float() @ base.float().T).numpy()
    values = queries[:, :96].numpy().astype(np.float64)
    expected = values @ values.T - np.square(values).sum(axis=1) / 2
    np.testing.assert_allclose(products, expected, rtol=0, atol=256**2 * 2**-20)


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e15])
def test_the_unit_of_the_rows_does_not_matter(factor):
    rows, fake = blobs(600, 8)[0], FakeFaiss()
    positions, *_ = nearest_in_cell((rows * factor).astype(np.float32), 7, sample(600), GpuSearch(fake))
    assert recall(positions, rows, 7) > 0.999, "the cast rounds"
    assert [dtype for dtype, _, _ in fake.asked] == [np.float16]


def test_equal_rows_go_by_position():
    rows = np.repeat(blobs(100, 4)[0], 4, axis=0)
    positions, squared, *_ = nearest_in_cell(rows, 3, sample(400), GpuSearch(FakeFaiss()))
    np.testing.assert_array_equal(positions[4:8], [[5, 6, 7], [4, 6, 7], [4, 5, 7], [4, 5, 6]])
    assert (squared == 0).all()


def test_rows_that_are_all_zero_are_neighbours_of_each_other():
    _, squared, *_ = nearest_in_cell(np.zeros((400, 4), np.float32), 5, sample(400), GpuSearch(FakeFaiss()))
    assert (squared == 0).all()


def test_a_cell_no_larger_than_the_sample_needs_no_faiss():
    rows, fake = blobs(200, 6)[0], FakeFaiss()
    positions, _, hits, tries = nearest_in_cell(rows, 7, sample(200), GpuSearch(fake))
    np.testing.assert_array_equal(positions, truth(rows, 7))
    assert (hits, tries, fake.asked) == (0, 0, [])


def test_cells_smaller_than_k_leave_missing_slots():
    rows = blobs(4, 6)[0]
    positions, squared, *_ = nearest_in_cell(rows, 7, sample(4), GpuSearch(FakeFaiss()))
    assert np.isfinite(squared[:, :3]).all()
    assert np.isinf(squared[:, 3:]).all()
    assert (positions[:, 3:] == np.arange(4)[:, None]).all()


def test_more_neighbours_than_a_gpu_selects_twice_are_found():
    rows, fake = np.random.default_rng(0).standard_normal((2300, 4)).astype(np.float32), FakeFaiss()
    positions, squared, *_ = nearest_in_cell(rows, 1024, sample(2300, 50), GpuSearch(fake))
    assert positions.shape == (2300, 1024)
    assert np.isfinite(squared).all()
    assert fake.asked == [(np.float16, faiss.METRIC_INNER_PRODUCT, 2048)]


@pytest.mark.parametrize("k", [K, 600])
def test_a_broken_device_is_an_error_at_once(k):
    fake = FakeFaiss(broken=True)
    with pytest.raises(SearchFailedError, match=r"FAISS on the GPU found fewer than .* for 500 of 500 queries"):
        nearest_in_cell(blobs(500, 8)[0], k, sample(500), GpuSearch(fake))
    assert [dtype for dtype, _, _ in fake.asked] == [np.float16, np.float32]
