from __future__ import annotations

import pytest
import torch

from distspectral.models.assigner import Assigner, clustering_coordinates


def test_normalised_rows_have_length_one_and_a_zero_row_stays():
    rows = clustering_coordinates(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.ones(2), True)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("normalize_rows", [True, False])
def test_assignment_is_the_nearest_centroid_and_its_distance(normalize_rows):
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(50, 3, generator=generator)
    scale, centroids = torch.tensor([1.0, 0.5, 0.1]), torch.randn(4, 3, generator=generator)
    cluster, distance = Assigner(scale, centroids, normalize_rows, 1.0)(embedding)
    distances = torch.cdist(clustering_coordinates(embedding, scale, normalize_rows), centroids)
    assert torch.equal(cluster, distances.argmin(1))
    torch.testing.assert_close(distance, distances.min(1).values, atol=1e-4, rtol=1e-4)
