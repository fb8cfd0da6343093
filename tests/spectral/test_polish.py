from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from distspectral.spectral import polish as module
from distspectral.spectral.polish import polished

N, P, E = 150, 4, 7


def laplacian(n_parts=1, seed=0):
    """Return a normalised Laplacian (N, N) of ``n_parts`` components, its kernel and the constant function."""
    rng = np.random.default_rng(seed)
    part = np.sort(rng.integers(n_parts, size=N))
    places = rng.normal(size=(N, 2))
    affinity = np.exp(-np.square(places[:, None] - places[None]).sum(2)) * (part[:, None] == part[None])
    degree = affinity.sum(axis=1)
    root = np.sqrt(degree)
    matrix = np.diag(np.ones(N)) - affinity / root / root[:, None]
    kernel = np.stack([root * (part == one) for one in range(n_parts)], axis=1)
    kernel = kernel / np.linalg.norm(kernel, axis=0)
    order = np.argsort([-(degree * (part == one)).sum() for one in range(n_parts)])
    return matrix, scipy.sparse.csc_matrix(kernel[:, order]), root


def found(matrix, kernel, constant, functions, n_kept=P):
    return polished(lambda block: matrix @ block, functions, kernel, constant, n_kept, 2.0, matrix.size)


def rough(matrix, seed=0, noise=0.3):
    """Return E functions such as a network learns: rotated eigenvectors, and noise."""
    rng = np.random.default_rng(seed)
    vectors = np.linalg.eigh(matrix)[1][:, :E]
    return vectors @ rng.normal(size=(E, E)) + noise * rng.normal(size=(N, E)) / np.sqrt(N)


@pytest.mark.parametrize("n_parts", [1, 2, 3])
def test_functions_are_the_lowest_eigenvectors_the_constant_one_first(n_parts):
    matrix, kernel, constant = laplacian(n_parts)
    made = found(matrix, kernel, constant, rough(matrix))
    assert made.converged
    assert made.vectors.shape == (N, E)
    np.testing.assert_allclose(made.vectors[:, :P].T @ made.vectors[:, :P], np.eye(P), atol=1e-10)
    assert abs(made.vectors[:, 0] @ constant) == pytest.approx(np.linalg.norm(constant))
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(made.values[:P], values[:P], atol=1e-4)
    inside = np.square(vectors[:, :P].T @ made.vectors[:, :P]).sum(axis=0)
    assert 1 - inside.mean() < module.ENOUGH


def test_a_function_that_was_not_learned_is_found():
    matrix, kernel, constant = laplacian()
    vectors = np.linalg.eigh(matrix)[1]
    made = found(matrix, kernel, constant, np.delete(vectors[:, : E + 1], 2, axis=1))
    assert np.square(vectors[:, 2] @ made.vectors[:, :P]).sum() == pytest.approx(1, abs=1e-3)


def test_of_more_components_than_functions_the_combinations_nearest_to_those_learned_are_taken():
    matrix, kernel, constant = laplacian(n_parts=12)
    rng = np.random.default_rng(1)
    wanted = kernel @ np.linalg.qr(rng.normal(size=(12, P - 1)))[0]
    others = rng.normal(size=(N, E - P + 1)) / N
    made = found(matrix, kernel, constant, np.hstack([10 * wanted, others]))
    assert made.filters.n_passes == 0
    assert abs(made.vectors[:, 0] @ constant) == pytest.approx(np.linalg.norm(constant))
    np.testing.assert_allclose(matrix @ made.vectors, 0, atol=1e-12)
    led = np.linalg.qr(np.column_stack([constant, wanted]))[0]
    np.testing.assert_allclose(np.linalg.norm(made.vectors[:, :P].T @ led, ord=2), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.svd(made.vectors[:, :P].T @ led)[1], 1, atol=1e-3)


def test_strong_functions_of_many_components_are_kept_though_they_hold_the_constant():
    matrix, kernel, constant = laplacian(n_parts=12)
    first = kernel.T @ constant / np.linalg.norm(constant)
    wanted = np.random.default_rng(1).normal(size=(12, P - 1))
    wanted = kernel @ (wanted - np.outer(first, first @ wanted))
    made = found(matrix, kernel, constant, np.column_stack([constant, wanted]))  # the constant is the strongest
    left = wanted - made.vectors[:, :P] @ (made.vectors[:, :P].T @ wanted)
    np.testing.assert_allclose(left, 0, atol=1e-10)


def test_functions_that_depend_on_each_other_are_not_all_that_the_rows_carry():
    matrix, kernel, constant = laplacian()
    rng, wanted = np.random.default_rng(0), 10  # more than the two that are learned and the random columns
    made = found(matrix, kernel, constant, rng.normal(size=(N, 2)) @ rng.normal(size=(2, 12)), n_kept=wanted)
    np.testing.assert_allclose(made.values[:wanted], np.linalg.eigvalsh(matrix)[:wanted], atol=1e-4)


def test_passes_that_do_not_suffice_are_told(monkeypatch):
    matrix, kernel, constant = laplacian()
    start = np.random.default_rng(0).normal(size=(N, E))
    monkeypatch.setattr(module, "most_passes", lambda entries: 1)
    made = found(matrix, kernel, constant, start)
    assert not made.converged
    assert made.filters.n_passes == 1


def test_rows_that_carry_fewer_functions_get_zeros():
    matrix = np.array([[0.5, -0.5, 0, 0], [-0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    constant = np.array([1.0, 1.0, 0, 0])  # two rows without edges have no mass
    kernel = scipy.sparse.csc_matrix(constant[:, None] / np.sqrt(2))
    start = np.random.default_rng(0).normal(size=(4, 3)) * constant[:, None]
    made = found(matrix, kernel, constant, start, n_kept=3)
    np.testing.assert_allclose(
        np.abs(made.vectors[:, :2]), np.sqrt([[0.5, 0.5], [0.5, 0.5], [0, 0], [0, 0]]), atol=1e-12
    )
    assert not made.vectors[:, 2].any()
    np.testing.assert_allclose(made.values, [0, 1], atol=1e-12)
