from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.spectral.contrastive import cauchy_losses, contrastive_losses, squared_pair_distances


def test_distances_are_those_of_the_pairs():
    features = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    heads, tails = torch.tensor([0, 5, 2, 2]), torch.tensor([1, 0, 2, 4])
    expected = [float(np.linalg.norm(features[i] - features[j]) ** 2) for i, j in zip(heads, tails, strict=True)]
    np.testing.assert_allclose(squared_pair_distances(features, heads, tails), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("distance", "is_neighbor", "loss"),
    [(0.5, True, 0.25), (3, True, 9), (0.5, False, 2.25), (2, False, 0), (3, False, 0)],
)
def test_neighbors_pay_for_distance_and_negatives_for_what_the_margin_lacks(distance, is_neighbor, loss):
    squared = torch.tensor([distance**2], dtype=torch.float64)
    assert float(contrastive_losses(squared, torch.tensor([is_neighbor]), margin=2.0)) == pytest.approx(loss)


def test_gradient_is_that_of_finite_differences_and_finite_where_a_pair_coincides():
    features = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    heads, tails = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4])
    is_neighbor = torch.tensor([True, False, False, True])

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return contrastive_losses(squared_pair_distances(rows, heads, tails), is_neighbor, 2.0).sum()

    assert torch.autograd.gradcheck(loss, (features,))
    same = torch.zeros(5, 2, requires_grad=True)
    loss(same).backward()
    assert torch.isfinite(same.grad).all()


def test_cauchy_losses_are_the_share_of_an_edge_in_the_similarity_of_its_head():
    places = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    heads, tails, negatives = torch.tensor([0, 3]), torch.tensor([1, 0]), torch.tensor([3, 4, 6])

    def similarity(a: int, b: int) -> float:
        return 1 / (1 + float(np.linalg.norm(places[a] - places[b])) ** 2)

    expected = []
    for head, tail in ((0, 1), (3, 0)):
        near, far = similarity(head, tail), sum(similarity(head, one) for one in (3, 4, 6) if one != head)
        expected.append(-np.log(near / (near + far)))
    np.testing.assert_allclose(cauchy_losses(places, heads, tails, negatives), expected, rtol=1e-12)
    pulled = [loss - 2 * np.log(similarity(*edge)) for loss, edge in zip(expected, ((0, 1), (3, 0)), strict=True)]
    np.testing.assert_allclose(cauchy_losses(places, heads, tails, negatives, 3.0), pulled, rtol=1e-12)


def test_gradient_of_cauchy_losses_is_that_of_finite_differences():
    places = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    heads, tails, negatives = torch.tensor([0, 1, 1]), torch.tensor([1, 2, 1]), torch.tensor([1, 4, 5])
    assert torch.autograd.gradcheck(lambda rows: cauchy_losses(rows, heads, tails, negatives).sum(), (places,))
