from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from distspectral.errors import NoEdgesError
from distspectral.graph.store import ArrayGraph
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.row_sampling import PairSampler, RowSampler, held_out_rows

N, K = 97, 5


def numbered() -> ArrayVectors:
    """A row's first feature is its number, the second is constant but for rounding."""
    return ArrayVectors(np.stack([np.arange(N), np.full(N, 3.0)], axis=1))


def ring(affinity: float = 1.0) -> ArrayGraph:
    """Row i's neighbours are i + 1, ..., i + K, the nearest first."""
    neighbors = (np.arange(N)[:, None] + np.arange(1, K + 1)) % N
    return ArrayGraph(neighbors, np.full((N, K), affinity, np.float32))


def test_rows_not_held_out_are_drawn_evenly_in_order_and_by_the_step_alone():
    one, other = (RowSampler(numbered(), batch_size=10, corruption=0, seed=1) for _ in range(2))
    counts = np.zeros(N, int)
    for step in range(400):
        rows = one.batch(step).vectors[:, 0].numpy().astype(int)
        assert np.all(np.diff(rows) >= 0)
        counts[rows] += 1
    held_out = np.array(held_out_rows(N))
    assert held_out.tolist() == [19, 39, 59, 79]
    assert not counts[held_out].any()
    seen = np.delete(counts, held_out)
    assert seen.min() > 20, "43 are expected of each"
    assert seen.max() < 67
    for step in (7, 2):
        assert torch.equal(other.batch(step).vectors, one.batch(step).vectors)
    assert not torch.equal(one.batch(1).vectors, one.batch(2).vectors)


def test_too_few_rows_to_spare_any_are_judged_by_all():
    assert list(held_out_rows(19)) == list(range(19))
    assert list(held_out_rows(20)) == [19]


def test_corruption_blanks_its_share_with_the_mean_and_leaves_the_target_alone():
    sampler = RowSampler(numbered(), batch_size=50, corruption=0.3, seed=0)
    blank, total = 0, 0
    for step in range(60):
        batch = sampler.batch(step)
        differs = batch.vectors != batch.targets
        assert torch.all(batch.vectors[differs] == np.float32(np.arange(N).mean()))
        assert set(batch.targets[:, 0].tolist()) <= set(range(N))
        blank, total = blank + int(differs[:, 0].sum()), total + 50
    assert 0.26 < blank / total < 0.34
    clean = RowSampler(numbered(), batch_size=50, corruption=0, seed=0).batch(0)
    assert torch.equal(clean.vectors, clean.targets)


def test_pairs_are_near_neighbors_and_random_rows_that_are_none():
    sampler = PairSampler(numbered(), ring(), batch_size=200, n_positives=2, seed=0)
    met = set()
    for step in range(30):
        batch = sampler.batch(step)
        heads, tails = (batch.vectors[ends, 0].numpy().astype(int) for ends in (batch.heads, batch.tails))
        near, step_apart = batch.is_neighbor.numpy(), (tails - heads) % N
        assert 60 < near.sum() <= 100
        assert 60 < (~near).sum() <= 100
        assert set(step_apart[near]) == {1, 2}, "the two nearest of five"
        assert not set(step_apart[~near]) & {0, *range(1, K + 1), *(N - np.arange(1, K + 1))}
        met |= set(heads[near])
    assert met == set(range(N))


def test_missing_slots_give_no_pairs():
    neighbors, affinities = ring().block(0, N)
    affinities[: N // 2] = 0
    batch = PairSampler(numbered(), ArrayGraph(neighbors, affinities), batch_size=400, n_positives=1, seed=0).batch(0)
    heads = batch.vectors[batch.heads[batch.is_neighbor], 0]
    assert heads.min() >= N // 2


def test_a_graph_without_edges_is_named():
    with pytest.raises(NoEdgesError, match="the graph is empty"):
        PairSampler(numbered(), ring(affinity=0.0), batch_size=20, n_positives=2, seed=0).batch(0)


def test_thin_rows_are_drawn_as_they_are_held():
    dense = np.zeros((N, 40), np.float32)
    dense[np.arange(N), np.arange(N) % 40] = np.arange(N) + 1
    samplers = [
        PairSampler(rows, ring(), batch_size=30, n_positives=2, seed=0)
        for rows in (ArrayVectors(dense), SparseVectors(sparse.csr_matrix(dense)))
    ]
    one, thin = (sampler.batch(4) for sampler in samplers)
    assert thin.vectors.is_sparse
    assert torch.equal(thin.vectors.to_dense(), one.vectors)
    assert torch.equal(thin.heads, one.heads)
