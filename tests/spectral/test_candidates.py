"""Numbers of clusters from affinities alone: planted ones, specks, and no structure at all."""

from __future__ import annotations

import numpy as np
import pytest

from distspectral.spectral.candidates import BY_GAP, WEAK, Candidate, merging_costs, ranked


def planted(sizes, across=0.02, seed=0):
    """Return affinities between small clusters, so many in each large one."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    drawn = np.where(labels[:, None] == labels, 1.0, across) * rng.random((len(labels),) * 2)
    return drawn + drawn.T


def of(fits, values):
    """Return the candidates where each small cluster has five rows, the same in all fits."""
    return ranked(fits, [np.repeat(np.arange(len(one)), 5) for one in fits], values)


@pytest.mark.parametrize("sizes", [(10, 10), (9, 11, 10), (12, 8, 6, 10, 9, 7, 11)])
def test_the_planted_number_comes_first(sizes):
    fits = [planted(sizes, seed=seed) for seed in range(3)]
    first = of(fits, np.zeros(1))[0]
    assert first.n_clusters == len(sizes)
    assert first.score == first.rise > 2 * WEAK
    assert first.stability == 1
    assert first.stands_out


def test_a_speck_is_no_cluster():
    between = planted((20, 20, 1), across=1e-4)
    assert of([between], np.zeros(1))[0].n_clusters == 2


def test_where_there_is_one_cluster_no_number_stands_out():
    assert of([planted((60,), seed=seed) for seed in range(3)], np.zeros(1))[0].score < WEAK


def test_clusters_that_other_fits_do_not_find_again_do_not_stand_out():
    rng, fits = np.random.default_rng(0), [planted((10, 10, 10), seed=seed) for seed in range(3)]
    rows = np.repeat(np.arange(30), 20)
    mixed = ranked(fits, [rows, rng.permutation(rows), rng.permutation(rows)], np.zeros(1))[0]
    assert mixed.n_clusters == 3
    assert mixed.stability < 0.5
    assert not mixed.stands_out
    assert not Candidate(3, WEAK - 0.01, 0.1, 0, 1).stands_out


def test_costs_fall_with_the_number_of_clusters():
    costs = merging_costs(planted((10, 10, 10)), 12)
    assert (np.diff(costs) <= 0).all()
    assert costs[3] > 0.5 > 0.2 > costs[4]


def test_gaps_decide_between_equal_rises():
    values = np.array([0, 0.1, 0.1, 0.1, 0.4, 0.5])
    found = {one.n_clusters: one for one in of([planted((10, 10, 10))], values)}
    assert found[4].gap == pytest.approx(0.75)
    assert found[4].score == pytest.approx(found[4].rise + BY_GAP * 0.75)
    assert found[6].gap == 0, "not known"
