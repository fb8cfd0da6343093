from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from distspectral.spectral.affinity import (
    SMALLEST,
    affinities,
    batch_affinity,
    complete_scales,
    neighbor_scales,
    neighborhood_overlap,
)

KINDS = ["self_tuning", "fuzzy", "gaussian", "uniform"]


def neighbours(rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    distances = (rows[:, None] - rows[None]).square().sum(2)
    distances.fill_diagonal_(torch.inf)
    squared, ids = distances.sort(dim=1, stable=True)
    return squared[:, :k], ids[:, :k]


@pytest.fixture
def cloud():
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 3)))
    return rows, *neighbours(rows, 10)


def test_self_tuning_is_the_kernel_with_both_scales(cloud):
    rows, squared, ids = cloud
    scales = complete_scales(neighbor_scales(squared, 7), "self_tuning")
    found = affinities(squared, "self_tuning", scales, scales[ids])
    for i in (0, 31):
        for slot, j in enumerate(ids[i]):
            s_i, s_j = (torch.sqrt(squared[row, 6]) for row in (i, j))
            expected = torch.exp(-(rows[i] - rows[j]).square().sum() / (s_i * s_j))
            assert torch.isclose(found[i, slot], expected, rtol=1e-12)


def test_gaussian_has_one_bandwidth_the_median_scale(cloud):
    _, squared, ids = cloud
    scales = complete_scales(neighbor_scales(squared, 4), "gaussian")
    bandwidth = squared[:, 3].sqrt().median()
    torch.testing.assert_close(affinities(squared, "gaussian", scales, scales[ids]), torch.exp(-squared / bandwidth**2))


def test_fuzzy_rows_sum_to_log2_of_k_and_the_nearest_is_certain(cloud):
    _, squared, _ = cloud
    found = affinities(squared, "fuzzy")
    np.testing.assert_allclose(found.sum(dim=1), np.log2(10), rtol=1e-6)
    assert (found[:, 0] == 1).all()
    distances = squared.sqrt()
    sigma = -(distances[:, 1] - distances[:, 0]) / found[:, 1].log()
    torch.testing.assert_close(found, torch.exp(-(distances - distances[:, :1]) / sigma[:, None]))


def test_uniform_is_one(cloud):
    assert (affinities(cloud[1], "uniform") == 1).all()


def test_shared_neighbours_are_the_jaccard_index_of_closed_neighbourhoods(cloud):
    _, squared, ids = cloud
    ids = ids.clone()
    missing = torch.zeros(ids.shape, dtype=torch.bool)
    missing[5, 7:] = missing[ids[5, 0], 4:] = missing[9] = True  # rows with fewer neighbours, one with none
    ids[missing] = missing.nonzero()[:, 0]
    found = neighborhood_overlap(torch.arange(60), ids, ids[ids])
    closed = [{i, *ids[i].tolist()} for i in range(60)]
    for i in range(60):
        for slot, j in enumerate(ids[i].tolist()):
            assert found[i, slot] == pytest.approx(len(closed[i] & closed[j]) / len(closed[i] | closed[j]))
    weights = affinities(squared.where(~missing, torch.inf), "shared_neighbors", overlap=found)
    assert ((weights > 0) == ~missing).all()


def test_batch_of_shared_neighbours_is_that_of_the_graph(cloud):
    rows, _, ids = cloud
    weights = batch_affinity(rows, 10, "shared_neighbors", 7)[2].reshape(60, 10)
    torch.testing.assert_close(weights, neighborhood_overlap(torch.arange(60), ids, ids[ids]).double())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_and_extremes_give_finite_positive_weights(kind, dtype):
    squared = torch.tensor(
        [[0, 0, 0, 0], [0, 0, 0, 1e-30], [0, 0, 1, 1e30], [1e-38, 1, 1, 1], [1, 1, 1, 1]], dtype=dtype
    )
    scales = complete_scales(neighbor_scales(squared, 3), kind)
    assert (scales > 0).all()
    found = affinities(squared, kind, scales, scales[torch.tensor([[1, 2, 3, 4]] * 5)])
    assert found.dtype == dtype
    assert torch.isfinite(found).all()
    assert (found[squared == 0] == 1).all()
    assert (found.to(torch.float16) > 0).all()
    assert found.max() <= 1


def test_rows_without_a_scale_take_the_median_of_the_others():
    squared = torch.tensor([[0.0, 0, 0], [0, 0, 4], [1, 9, 9], [1, 1, 1]])
    scales = neighbor_scales(squared, 2)
    assert scales.tolist() == [0, 2, 3, 1]
    assert complete_scales(scales, "self_tuning").tolist() == [2, 2, 3, 1]
    assert complete_scales(torch.zeros(3), "self_tuning").tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_neighbours_have_no_affinity_and_do_not_disturb(kind):
    squared = torch.tensor([[1.0, 4, torch.inf, torch.inf], [torch.inf] * 4, [1, 4, 4, 4]])
    scales = complete_scales(neighbor_scales(squared, 3), kind)
    assert neighbor_scales(squared, 3).tolist() == [2, 0, 2]
    found = affinities(squared, kind, scales, scales[torch.tensor([[2, 2, 0, 0], [1] * 4, [0] * 4])])
    assert ((found > 0) == torch.isfinite(squared)).all()
    assert torch.isfinite(found).all()


def test_far_edges_stop_at_the_smallest_float16():
    scales = torch.ones(1)
    found = affinities(torch.tensor([[1.0, 1e4]]), "self_tuning", scales, torch.ones(1, 2))
    assert found[0, 1] == SMALLEST
    assert torch.tensor(SMALLEST).to(torch.float16) > 0
    assert torch.tensor(SMALLEST / 2.1).to(torch.float16) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_and_two_neighbours_are_enough(kind):
    for k in (1, 2):
        squared = torch.arange(1, k + 1, dtype=torch.float32).repeat(3, 1)
        scales = complete_scales(neighbor_scales(squared, 1), kind)
        assert (affinities(squared, kind, scales, scales[:, None].expand(3, k)) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_batch_graph_equals_the_graph_of_the_batch(cloud, kind):
    rows, squared, ids = cloud
    heads, tails, weights = batch_affinity(rows, 10, kind, 7)
    np.testing.assert_array_equal(heads, np.repeat(np.arange(60), 10))
    np.testing.assert_array_equal(tails.reshape(60, 10), ids)
    scales = complete_scales(neighbor_scales(squared, 7), kind)
    torch.testing.assert_close(weights.reshape(60, 10), affinities(squared, kind, scales, scales[ids]))


def test_batch_far_from_the_origin_keeps_its_neighbours(cloud):
    rows = cloud[0].float()
    ids = neighbours(rows, 5)[1]
    found = batch_affinity(rows.double() + 1e8, 5, "uniform", 1)[1].reshape(60, 5)
    np.testing.assert_array_equal(found, ids)


def test_batch_of_duplicates_never_pairs_a_row_with_itself():
    heads, tails, weights = batch_affinity(torch.ones(8, 2), 3, "self_tuning", 2)
    assert (heads != tails).all()
    assert (weights == 1).all()


def test_batch_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="5 rows"):
        batch_affinity(torch.eye(5), 5, "uniform", 1)


def test_module_needs_neither_faiss_nor_pyarrow():
    code = "import sys, distspectral.spectral.affinity; print({'faiss', 'pyarrow', 'ray'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
