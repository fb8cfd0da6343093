"""The projector loss against its definition, finite differences, autograd, and what breaks it in practice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from distspectral.errors import NonFiniteStepError, TooFewClassesError
from distspectral.spectral import DSCLLoss
from distspectral.spectral.dscl import (
    certain_inverse,
    class_counts,
    class_sums,
    eigenvalue_cutoff,
    project,
    spectral_pseudo_inverse,
)
from distspectral.spectral.rayleigh import gram


def batch(n_rows=40, width=6, n_classes=5, seed=0, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        [torch.arange(n_classes), torch.randint(0, n_classes, (n_rows - n_classes,), generator=generator)]
    )
    return torch.randn(n_rows, width, generator=generator, dtype=torch.float64).to(dtype), labels


def ideal(labels: Tensor) -> Tensor:
    """Return C, (n, n), by its definition: 1 / n_c where both rows are of class c."""
    return (labels[:, None] == labels).double() / (labels[:, None] == labels).double().sum(1)


def dense_loss(f: Tensor, labels: Tensor) -> Tensor:
    """Return l by its definition, with n x n matrices and torch's own pseudo-inverse."""
    return len(labels.unique()) - torch.trace(ideal(labels) @ f @ torch.linalg.pinv(f))


def gradient(f: Tensor, labels: Tensor) -> Tensor:
    f = f.clone().requires_grad_()
    DSCLLoss()(f, labels).backward()
    assert f.grad is not None
    return f.grad


def value(f: Tensor, labels: Tensor) -> float:
    return float(DSCLLoss()(f, labels))


@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_those_of_the_definition(seed):
    f, labels = batch(seed=seed)
    expected = f.clone().requires_grad_()
    loss = dense_loss(expected, labels)
    loss.backward()
    assert value(f, labels) == pytest.approx(float(loss.detach()), abs=1e-12)
    torch.testing.assert_close(gradient(f, labels), expected.grad, rtol=1e-10, atol=1e-12)


def test_gradient_is_that_of_finite_differences():
    f, labels = batch(n_rows=20, width=4, n_classes=3)
    step = 1e-5  # the second difference's error and float64's rounding are both below 1e-9 here
    expected = torch.zeros_like(f)
    for index in np.ndindex(*f.shape):
        there, back = f.clone(), f.clone()
        there[index] += step
        back[index] -= step
        expected[index] = (value(there, labels) - value(back, labels)) / (2 * step)
    assert float((gradient(f, labels) - expected).abs().max()) < 1e-6
    assert float(expected.abs().max()) > 1e-2, "nothing was compared"


def test_gradcheck_passes():
    f, labels = batch(n_rows=15, width=3, n_classes=4)
    assert torch.autograd.gradcheck(lambda f: DSCLLoss()(f, labels), (f.requires_grad_(),))


def test_the_sums_give_the_same_gradient_by_autograd():
    f, labels = batch()
    f.requires_grad_()
    sums = gram(f, torch.ones(len(f), dtype=torch.float64)), class_sums(f, labels, 5)
    projection = project(*sums, class_counts(labels, 5), f.dtype)
    projection.surrogate(*sums).backward()
    torch.testing.assert_close(f.grad, gradient(f.detach(), labels), rtol=1e-10, atol=1e-12)


def test_the_loss_lies_between_0_and_the_number_of_classes():
    f, labels = batch(n_rows=60, width=8)
    assert 0 < value(f, labels) < 5
    indicators = torch.nn.functional.one_hot(labels).double()
    assert value(indicators, labels) == pytest.approx(0, abs=1e-12)
    orthogonal = torch.linalg.qr(torch.cat([indicators, f], dim=1))[0][:, 5:]
    assert value(orthogonal, labels) == pytest.approx(5, abs=1e-10)


def test_the_loss_ignores_invertible_maps_of_the_columns():
    f, labels = batch()
    mixing = torch.from_numpy(np.random.default_rng(1).standard_normal((6, 6)))
    assert value(f @ mixing, labels) == pytest.approx(value(f, labels), rel=1e-9)
    assert value(1e8 * f, labels) == pytest.approx(value(f, labels), rel=1e-9)


def test_labels_are_names_only():
    f, labels = batch()
    assert value(f, 7 - 3 * labels) == pytest.approx(value(f, labels), rel=1e-12)


def test_absent_classes_count_for_nothing():
    f, labels = batch()
    f.requires_grad_()
    spread = 2 * labels + 1  # classes 0, 2, 4, ... do not occur
    sums = gram(f, torch.ones(len(f), dtype=torch.float64)), class_sums(f, spread, 12)
    projection = project(*sums, class_counts(spread, 12), f.dtype)
    assert float(projection.value) == pytest.approx(value(f.detach(), labels), rel=1e-12)
    torch.testing.assert_close(projection.gradient(f, spread), gradient(f.detach(), labels))
    assert float(projection.class_coefficient[::2].abs().max()) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fewer_rows_than_columns_span_everything(dtype):
    f, labels = batch(n_rows=8, width=20, n_classes=3, dtype=dtype)
    assert value(f, labels) == pytest.approx(0, abs=1e-5 if dtype == torch.float32 else 1e-10)
    assert float(gradient(f, labels).abs().max()) < 1e-4


def test_fewer_rows_than_columns_of_low_rank_match_the_definition():
    f, labels = batch(n_rows=8, width=3, n_classes=4)
    wide = f @ torch.from_numpy(np.random.default_rng(2).standard_normal((3, 20)))
    assert value(wide, labels) == pytest.approx(float(dense_loss(wide, labels)), abs=1e-9)
    assert value(wide, labels) > 0.5


def closed_form(f: Tensor, labels: Tensor) -> Tensor:
    inverse = torch.linalg.pinv(f)
    return -2 * (torch.eye(len(f), dtype=f.dtype) - f @ inverse) @ ideal(labels) @ inverse.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lost_rank_leaves_value_and_gradient_as_the_formula_says(dtype):
    f, labels = batch(n_rows=64, width=5)
    f = torch.cat([f, f[:, :2], f[:, :1] - 2 * f[:, 1:2], torch.zeros(64, 1, dtype=f.dtype)], dim=1)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(gradient(f.to(dtype), labels).double(), closed_form(f, labels), **tolerance)
    assert value(f.to(dtype), labels) == pytest.approx(float(dense_loss(f, labels)), rel=1e-5)


def test_rounding_of_float32_is_not_taken_for_a_direction():
    f, _ = batch(n_rows=64, width=5, dtype=torch.float32)
    doubled = torch.cat([f, (f * 1.1) / 1.1], dim=1)  # equal up to one rounding
    wide, narrow = (eigenvalue_cutoff(torch.tensor(64), 10, dtype) for dtype in (torch.float32, torch.float64))
    for x in (doubled, f):
        assert int(spectral_pseudo_inverse(gram(x, torch.ones(64, dtype=torch.float64)), wide)[1]) == 5
    assert narrow < 1e-14 < wide < 1e-8


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-7, 1e-11, 0.0])
def test_pseudo_inverse_is_that_of_the_eigenvalues_that_count(smallest):
    vectors = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).standard_normal((6, 6))))[0]
    values = torch.tensor([smallest, 0.5, 1, 2, 3, 4], dtype=torch.float64)
    matrix, cutoff = vectors @ torch.diag(values) @ vectors.T, torch.tensor(1e-9, dtype=torch.float64)
    inverse, rank = spectral_pseudo_inverse(matrix, cutoff)
    counts = values > 1e-9 * 4
    assert int(rank) == int(counts.sum())
    expected = (vectors * torch.where(counts, 1 / values, 0)) @ vectors.T
    tolerance = {"rtol": 1e-7, "atol": 1e-7 / max(smallest, 1e-9)}
    torch.testing.assert_close(inverse, expected, **tolerance)
    inverse, is_certain = certain_inverse(matrix, cutoff)
    assert bool(is_certain) == bool(counts.all())
    if is_certain:
        torch.testing.assert_close(inverse, expected, **tolerance)


def test_an_embedding_of_zeros_has_no_gradient_and_explains_nothing():
    labels = torch.arange(6) % 3
    assert value(torch.zeros(6, 4), labels) == 3
    assert float(gradient(torch.zeros(6, 4), labels).abs().max()) == 0


def test_singletons_and_duplicate_rows_match_the_definition():
    f, _ = batch(n_rows=12, width=4)
    f[3] = f[2]
    f[7] = f[2]
    labels = torch.tensor([0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5])
    expected = f.clone().requires_grad_()
    loss = dense_loss(expected, labels)
    loss.backward()
    assert value(f, labels) == pytest.approx(float(loss.detach()), abs=1e-12)
    torch.testing.assert_close(gradient(f, labels), expected.grad, rtol=1e-9, atol=1e-11)


def test_one_class_is_refused():
    f, _ = batch()
    with pytest.raises(TooFewClassesError, match="rows are of 1 class"):
        value(f, torch.full((40,), 9))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused(bad):
    f, labels = batch()
    f[3, 1] = bad
    with pytest.raises(NonFiniteStepError, match="holds NaN or infinity"):
        value(f, labels)


def test_wrong_shapes_and_pairs_of_a_miner_are_refused():
    f, labels = batch()
    with pytest.raises(ValueError, match=r"\(40, 6\) and labels \(39,\)"):
        value(f, labels[1:])
    with pytest.raises(ValueError, match="miner"):
        DSCLLoss()(f, labels, (labels, labels, labels))


def test_gradient_steps_lower_the_loss_to_zero():
    f, labels = batch(n_rows=30, width=5, dtype=torch.float32)
    f.requires_grad_()
    optimizer = torch.optim.Adam([f], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = DSCLLoss()(f, labels)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3
