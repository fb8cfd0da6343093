"""The first rows of each cluster."""

from __future__ import annotations

import numpy as np

from distspectral.spectral.exemplars import first_of_each, rank_within


def test_the_least_values_of_each_cluster_come_first_and_ties_by_row() -> None:
    clusters, values = np.array([1, 0, 1, 1, 0, 5]), np.array([2.0, 1, 2, 0, np.inf, 9])
    assert first_of_each(clusters, values, np.array([9, 8, 3, 6, 5, 4]), 2).tolist() == [1, 3, 2, 5]
    assert rank_within(np.array([0, 0, 2, 2, 2])).tolist() == [0, 1, 0, 1, 2]
