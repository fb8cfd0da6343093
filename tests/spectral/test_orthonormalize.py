from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import RankDeficientError
from distspectral.spectral.orthonormalize import bias, cholesky_factor, moving_average, whiten


@pytest.fixture
def functions():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((200, 4)) @ np.diag([1, 0.1, 5, 2]))


def test_factor_reproduces_the_loaded_gram(functions):
    gram = functions.T @ functions
    for jitter in (0.0, 1e-3):
        factor = cholesky_factor(gram, jitter=jitter)
        assert torch.equal(factor, factor.tril())
        loaded = gram + jitter * gram.diagonal().mean() * torch.eye(4, dtype=torch.float64)
        torch.testing.assert_close(factor @ factor.T, loaded, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_jitter_is_relative_to_the_scale_of_the_functions(functions, scale):
    gram = functions.T @ functions
    found = cholesky_factor(scale * gram, jitter=1e-2)
    torch.testing.assert_close(found, np.sqrt(scale) * cholesky_factor(gram, jitter=1e-2), rtol=1e-10, atol=0)


@pytest.mark.parametrize("position", [2, 3])
def test_dependent_function_is_named(functions, position):
    f = functions.clone()
    f[:, position] = f[:, 0] - f[:, 1]
    with pytest.raises(RankDeficientError, match=rf"4 functions .*function {position + 1} depends"):
        cholesky_factor(f.T @ f, jitter=-1e-12)  # just short of the plain Gram, whose pivot may round to either side


def test_jitter_lets_dependent_functions_pass(functions):
    f = torch.cat([functions, functions[:, :1]], dim=1)
    assert torch.isfinite(cholesky_factor(f.T @ f, jitter=1e-9)).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gram_that_is_not_finite_is_refused(bad):
    gram = torch.eye(3, dtype=torch.float64)
    gram[1, 1] = bad
    with pytest.raises(RankDeficientError):
        cholesky_factor(gram)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_whitened_functions_are_orthonormal(functions, dtype, tolerance):
    f = functions.to(dtype)
    gram = f.double().T @ f.double() / len(f)
    y = whiten(f, cholesky_factor(gram, jitter=0.0))
    assert y.dtype == dtype
    np.testing.assert_allclose(y.double().T @ y.double() / len(f), np.eye(4), atol=tolerance)


def test_gradient_flows_to_the_functions_and_not_to_the_factor(functions):
    f = functions.requires_grad_()
    factor = cholesky_factor(f.T @ f).requires_grad_()
    whiten(f, factor).sum().backward()
    assert factor.grad is None
    assert f.grad is not None
    torch.testing.assert_close(f.grad[0], torch.linalg.inv(factor.detach()).sum(0))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_corrected_average_of_a_constant_is_the_constant_from_the_first_update_on(decay):
    value, average = torch.full((2, 2), 3.0, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for n in range(1, 6):
        average = moving_average(average, value, decay)
        torch.testing.assert_close(average / bias(torch.tensor(n), decay), value, rtol=1e-12, atol=0)


def test_corrected_average_weighs_values_geometrically():
    values = [torch.tensor([float(x)], dtype=torch.float64) for x in (1, 5, -2)]
    average = torch.zeros(1, dtype=torch.float64)
    for value in values:
        average = moving_average(average, value, 0.8)
    expected = np.average([1, 5, -2], weights=[0.64, 0.8, 1])
    assert float(average / bias(torch.tensor(3), 0.8)) == pytest.approx(expected, rel=1e-12)
