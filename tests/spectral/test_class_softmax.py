"""The softmax over class means against its definition by dense matrices, autograd, its limits and what breaks it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distspectral.errors import TooFewClassesError
from distspectral.spectral import ClassSoftmaxLoss
from distspectral.spectral.class_softmax import assign, metric, metric_map, unit_rows
from distspectral.spectral.dscl import class_counts, class_sums
from distspectral.spectral.rayleigh import gram


def batch(n_rows=40, width=6, n_classes=5, seed=0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        [torch.arange(n_classes), torch.randint(0, n_classes, (n_rows - n_classes,), generator=generator)]
    )
    return torch.randn(n_rows, width, generator=generator, dtype=torch.float64), labels


def by_definition(f: Tensor, labels: Tensor, ridge: float, temperature: float) -> Tensor:
    """Return the loss by whitened rows, one row and one class at a time."""
    rows = f / f.norm(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    whitened = rows @ vectors @ torch.diag((values + ridge / f.shape[1]).rsqrt())
    losses = []
    for i, row in enumerate(whitened):
        others = [(labels == label) & (torch.arange(len(f)) != i) for label in labels.unique()]
        own = int(torch.searchsorted(labels.unique(), labels[i]))
        if others[own].any():
            means = torch.stack([whitened[members].mean(0) for members in others])
            cosines = torch.nn.functional.cosine_similarity(row, means, dim=1)
            losses.append(-torch.log_softmax(cosines / temperature, dim=0)[own])
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("ridge", "temperature"), [(0.1, 0.2), (1e-3, 1.0), (10.0, 0.05)])
def test_value_and_gradient_are_those_of_the_definition(ridge, temperature):
    f, labels = batch()
    expected, found = (f.clone().requires_grad_() for _ in range(2))
    loss = by_definition(expected, labels, ridge, temperature)
    loss.backward()
    value = ClassSoftmaxLoss(ridge, temperature)(found, labels)
    value.backward()
    assert float(value.detach()) == pytest.approx(float(loss.detach()), rel=1e-10)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-8, atol=1e-12)
    assert float(found.grad.norm()) > 1e-2, "nothing was compared"


def test_gradcheck_passes():
    f, labels = batch(n_rows=12, width=3, n_classes=4)
    assert torch.autograd.gradcheck(lambda f: ClassSoftmaxLoss()(f, labels), (f.requires_grad_(),))


def test_parts_of_ranks_add_up_to_the_gradient_of_the_whole():
    f, labels = batch()
    whole = f.clone().requires_grad_()
    ClassSoftmaxLoss(0.3, 0.1)(whole, labels).backward()
    parted = f.clone().requires_grad_()
    shares = [slice(0, 7), slice(7, 40)]
    rows = [unit_rows(parted[share]) for share in shares]
    ones = [torch.ones(len(part), dtype=torch.float64) for part in rows]
    grams = [gram(*each) for each in zip(rows, ones, strict=True)]
    sums = [class_sums(part, labels[share], 7) for part, share in zip(rows, shares, strict=True)]  # two never occur
    total = sum(grams).detach(), sum(sums).detach(), class_counts(labels, 7)
    own = [assign(part, labels[share], *total, 0.3, 0.1) for part, share in zip(rows, shares, strict=True)]
    by_gram, by_sums = sum(one.gram_coefficient for one in own), sum(one.class_coefficient for one in own)
    for one, local_gram, local_sums in zip(own, grams, sums, strict=True):
        (one.loss + (by_gram * local_gram).sum() + (by_sums * local_sums).sum()).backward()
    torch.testing.assert_close(parted.grad, whole.grad, rtol=1e-10, atol=1e-14)


def test_the_metric_ignores_maps_of_the_columns_as_the_ridge_vanishes_and_is_none_as_it_grows():
    f, labels = batch()
    rows = unit_rows(f)
    mixed = torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64))
    ones, counts = torch.ones(40, dtype=torch.float64), class_counts(labels, 5)

    def loss(rows, ridge):
        own = assign(rows, labels, gram(rows, ones), class_sums(rows, labels, 5), counts, ridge, 0.2)
        return float(own.loss.detach())

    assert loss(rows @ mixed, 1e-12) == pytest.approx(loss(rows, 1e-12), rel=1e-6)
    assert loss(rows @ mixed, 1.0) != pytest.approx(loss(rows, 1.0), rel=1e-2)
    plain = by_definition(f, labels, 1e9, 0.2)
    assert loss(rows, 1e9) == pytest.approx(float(plain), rel=1e-6)


def test_rows_times_the_map_have_the_cosines_of_the_metric():
    rows = unit_rows(batch()[0])
    of_rows = torch.ones(40, dtype=torch.float64)
    inverse = metric(gram(rows, of_rows), of_rows.sum(), 0.1)
    mapped = rows @ metric_map(gram(rows, of_rows), of_rows.sum(), 0.1)
    torch.testing.assert_close(mapped @ mapped.T, rows @ inverse @ rows.T)
    values = torch.linalg.eigvalsh(mapped.T @ mapped / 40)
    assert 0.5 < float(values.min()) <= float(values.max()) < 1, "isotropic up to the ridge"


def test_the_only_row_of_a_class_is_not_asked_but_chosen_among():
    f, labels = batch()
    alone = labels.clone()
    alone[:2] = torch.tensor([7, 8])
    expected, found = (f.clone().requires_grad_() for _ in range(2))
    by_definition(expected, alone, 0.1, 0.1).backward()
    ClassSoftmaxLoss()(found, alone).backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-8, atol=1e-12)
    assert float(found.grad[0].norm()) > 1e-4, "the others are pushed from it, and it from them"
    f.requires_grad_()
    loss = ClassSoftmaxLoss()(f, torch.arange(40))
    loss.backward()
    assert float(loss.detach()) == float(f.grad.abs().max()) == 0


def test_lengths_of_rows_and_names_of_classes_count_for_nothing():
    f, labels = batch()
    lengths = torch.linspace(0.1, 10, 40, dtype=torch.float64)[:, None]
    assert float(ClassSoftmaxLoss()(lengths * f, 9 - 2 * labels)) == pytest.approx(float(ClassSoftmaxLoss()(f, labels)))


def test_lost_rank_and_rows_of_zeros_leave_value_and_gradient_finite():
    f, labels = batch(n_rows=8, width=3, n_classes=4)
    wide = torch.cat([f, f, torch.zeros(8, 12, dtype=torch.float64)], dim=1)
    wide[5] = 0
    wide.requires_grad_()
    loss = ClassSoftmaxLoss()(wide, labels)
    loss.backward()
    assert torch.isfinite(wide.grad).all()
    assert 0 < float(loss.detach()) < 10


def test_one_class_wrong_shapes_and_pairs_of_a_miner_are_refused():
    f, labels = batch()
    with pytest.raises(TooFewClassesError, match="rows are of 1 class"):
        ClassSoftmaxLoss()(f, torch.zeros(40))
    with pytest.raises(ValueError, match="ClassSoftmaxLoss: embeddings have shape"):
        ClassSoftmaxLoss()(f, labels[1:])
    with pytest.raises(ValueError, match="ClassSoftmaxLoss: got the pairs of a miner"):
        ClassSoftmaxLoss()(f, labels, (labels, labels, labels))
