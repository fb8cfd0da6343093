from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from distspectral.comm import collectives
from distspectral.spectral.rayleigh import dirichlet_energy, gram
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.sampling import SIZES, EdgeSampler, InBatchSampler, filled_up, share, stratified
from tests.oracles import all_edges, random_graph

N, K, SEED = 60, 5, 3


@pytest.fixture
def vectors():
    return ArrayVectors(np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32))


@pytest.fixture
def graph():
    return random_graph(N, K, missing=0.3)


def ids_of(batch, vectors):
    """Return the global row behind each row of a batch."""
    rows = vectors.block(0, N)
    return np.array([np.flatnonzero((rows == row).all(1))[0] for row in batch.vectors.numpy()])


def sampler(vectors, graph, laplacian="random_walk", batch_size=40):
    return EdgeSampler(vectors, graph, batch_size=batch_size, laplacian=laplacian, seed=SEED)


@pytest.mark.parametrize("laplacian", ["random_walk", "unnormalized"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_mean_sums_over_many_steps_and_all_ranks_are_those_of_every_edge(
    vectors, graph, laplacian, world_size, monkeypatch
):
    rows = torch.from_numpy(vectors.block(0, N)).double()
    exact = all_edges(rows, graph, laplacian)
    samplers = []
    total = float(graph.block(0, N)[1].sum(dtype=np.float64))
    monkeypatch.setattr(collectives, "world_size", lambda: world_size)
    monkeypatch.setattr(collectives, "all_reduce_sum", lambda sums: {name: torch.tensor([total]) for name in sums})
    for rank in range(world_size):
        monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
        samplers.append(sampler(vectors, graph, laplacian))
    n_steps = 600
    energy, mass = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for step in range(n_steps):
        for one in samplers:
            batch = one.batch(step)
            energy += dirichlet_energy(batch.vectors, batch.heads, batch.tails, batch.weights) / n_steps
            mass += gram(batch.vectors, batch.mass) / n_steps
    # 24,000 edges: relative standard error about 1 / sqrt(24,000), stratification lowers it
    torch.testing.assert_close(
        energy, dirichlet_energy(rows, exact.heads, exact.tails, exact.weights), rtol=0.02, atol=0.02
    )
    torch.testing.assert_close(mass, gram(rows, exact.mass), rtol=0.02, atol=0.02)


def test_missing_slots_are_never_drawn_and_edges_are_the_graphs(vectors, graph):
    neighbors, affinities = graph.block(0, N)
    real = {(i, int(j)) for i in range(N) for j, w in zip(neighbors[i], affinities[i], strict=True) if w > 0}
    for step in range(20):
        batch = sampler(vectors, graph).batch(step)
        ids = ids_of(batch, vectors)
        assert {(int(ids[h]), int(ids[t])) for h, t in zip(batch.heads, batch.tails, strict=True)} <= real


def test_a_step_decides_its_batch_whoever_asks(vectors, graph):
    first, again = sampler(vectors, graph), sampler(vectors, graph)
    again.batch(0)
    for name in ("vectors", "heads", "tails", "weights", "mass"):
        assert torch.equal(getattr(first.batch(7), name), getattr(again.batch(7), name))
    assert not torch.equal(first.batch(7).tails, first.batch(8).tails)


@pytest.mark.parametrize("laplacian", ["random_walk", "unnormalized"])
def test_weights_and_masses_of_one_process_sum_to_one(vectors, graph, laplacian):
    batch = sampler(vectors, graph, laplacian).batch(0)
    assert float(batch.weights.sum()) == pytest.approx(1, abs=1e-12)
    assert float(batch.mass.sum()) == pytest.approx(1, abs=1e-12)


def test_each_row_of_a_batch_comes_once(vectors, graph):
    batch = sampler(vectors, graph).batch(0)
    ends = torch.unique(torch.cat([batch.heads, batch.tails])).numpy()
    ids = ids_of(batch, vectors)
    assert len(np.unique(ids[ends])) == len(ends)


def test_shares_cut_everything_without_gaps():
    cuts = [share(10, rank, 3) for rank in range(3)]
    assert cuts == [(0, 3), (3, 6), (6, 10)]


def test_stratified_numbers_fall_one_in_each_step():
    numbers = stratified(50, np.random.default_rng(0))
    np.testing.assert_array_equal(np.floor(numbers * 50), np.arange(50))


@pytest.mark.parametrize("laplacian", ["random_walk", "unnormalized"])
def test_in_batch_edges_stay_in_the_batch_and_masses_sum_to_one(vectors, laplacian):
    one = InBatchSampler(
        vectors, batch_size=90, n_neighbors=3, kind="self_tuning", scale_neighbor=2, laplacian=laplacian, seed=SEED
    )
    batch = one.batch(4)
    assert len(batch.vectors) == 30
    assert len(batch.heads) == 90
    assert int(torch.maximum(batch.heads, batch.tails).max()) < 30
    assert float(batch.weights.sum()) == pytest.approx(1, abs=1e-6)  # affinities are float32
    assert float(batch.mass.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(batch.vectors, one.batch(4).vectors)


def test_thin_rows_are_drawn_as_they_are_held(graph):
    dense = np.zeros((N, 40), np.float32)
    dense[np.arange(N), np.arange(N) % 40] = np.arange(N) + 1
    one, thin = (
        sampler(rows, graph).batch(4) for rows in (ArrayVectors(dense), SparseVectors(sparse.csr_matrix(dense)))
    )
    assert thin.vectors.is_sparse
    assert torch.equal(thin.vectors.to_dense(), one.vectors)
    assert torch.equal(thin.mass, one.mass)


def test_batches_are_of_few_sizes_and_no_row_is_lost():
    sizes = {len(filled_up(np.arange(n))) for n in range(1025, 4097)}
    assert len(sizes) == 2 * SIZES
    for n in (1, 2, 30, 33, 1963, 2048, 2049):
        filled = filled_up(np.arange(n))
        np.testing.assert_array_equal(filled[:n], np.arange(n))
        assert (filled[n:] == n - 1).all()
        assert n <= len(filled) <= n * (1 + 1 / SIZES)


@pytest.mark.parametrize("laplacian", ["random_walk", "unnormalized"])
def test_rows_that_fill_a_batch_up_have_no_mass(vectors, graph, laplacian):
    drawn, n_filled = sampler(vectors, graph, laplacian), 0
    for step in range(8):
        batch = drawn.batch(step)
        n_distinct = len(torch.unique(batch.vectors, dim=0))
        n_filled += len(batch.vectors) - n_distinct
        assert len(batch.mass) == len(batch.vectors)
        assert (batch.mass[n_distinct:] == 0).all()
    assert n_filled, "the batches show something"
