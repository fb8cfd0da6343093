"""Outliers by two distances, of dense and sparse rows."""

from __future__ import annotations

import torch

from distspectral.models.outliers import Outliers


def drawn(n_rows=40):
    generator = torch.Generator().manual_seed(0)
    means, rows = torch.randn(3, 6, generator=generator), torch.randn(n_rows, 6, generator=generator)
    cluster = torch.randint(3, (n_rows,), generator=generator)
    return Outliers(means, torch.tensor([2.0, 3, 2.5]), torch.tensor([1.0, torch.inf, 2])).eval(), rows, cluster


def test_a_row_is_an_outlier_by_either_distance():
    outliers, rows, cluster = drawn()
    leaf_distance = torch.linspace(0, 4, len(rows))
    far = torch.cdist(rows, outliers.means)[torch.arange(len(rows)), cluster] > outliers.reach[cluster]
    strange = leaf_distance > outliers.leaf_reach[cluster]
    assert torch.equal(outliers(rows, cluster, leaf_distance), far | strange)
    assert (far & ~strange).sum() > 0
    assert (strange & ~far).sum() > 0


def test_sparse_rows_have_the_distances_of_dense_ones():
    outliers, rows, cluster = drawn()
    rows[rows.abs() < 0.8] = 0
    rows[3] = 0
    sparse = rows.to_sparse().coalesce()
    torch.testing.assert_close(outliers.distances(sparse, cluster), outliers.distances(rows, cluster))


def test_nobody_is_an_outlier_as_long_as_nothing_is_known():
    found = Outliers.none(3, 6)(torch.randn(5, 6) * 1e6, torch.arange(5) % 3, torch.full((5,), 1e9))
    assert not found.any()


def test_what_is_restored_is_the_same():
    outliers, rows, cluster = drawn()
    again = Outliers.from_state(outliers.state_dict())
    assert torch.equal(again.excess(rows, cluster, cluster.float()), outliers.excess(rows, cluster, cluster.float()))
    assert not again.training
