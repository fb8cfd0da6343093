from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from distspectral.errors import RankDeficientError
from distspectral.spectral.diagnostics import sin2_principal_angles
from distspectral.spectral.orthonormalize import cholesky_factor
from distspectral.spectral.rayleigh import aligned, dirichlet_energy, gram, linearize, rayleigh_ritz, whitened_energy
from tests.oracles import all_edges, dense_laplacian, dense_spectrum, random_graph

N_ROWS, N_FUNCTIONS = 60, 5
LAPLACIANS = ["random_walk", "unnormalized"]
OBJECTIVES = ["trace", "logdet"]


@pytest.fixture(scope="module")
def graph():
    return random_graph(N_ROWS, 6, missing=0.1)


@pytest.fixture
def functions():
    return torch.from_numpy(np.random.default_rng(1).standard_normal((N_ROWS, N_FUNCTIONS)))


def sums(functions, graph, laplacian="random_walk"):
    batch = all_edges(functions, graph, laplacian)
    return dirichlet_energy(functions, batch.heads, batch.tails, batch.weights), gram(functions, batch.mass)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
def test_edges_give_the_rayleigh_quotient_of_the_symmetrised_laplacian(graph, functions, laplacian):
    energy, gram_matrix = sums(functions, graph, laplacian)
    matrix, degree = dense_laplacian(graph)
    weights = degree if laplacian == "random_walk" else np.full(N_ROWS, degree.mean())
    f = functions.numpy()
    expected = np.trace(np.linalg.solve(f.T @ (f * weights[:, None]), f.T @ matrix @ f))
    found = torch.linalg.solve(gram_matrix, energy).trace()
    assert float(found) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(energy, f.T @ matrix @ f / degree.sum(), atol=1e-14)
    np.testing.assert_allclose(gram_matrix, f.T @ (f * weights[:, None]) / weights.sum(), atol=1e-14)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
def test_ritz_values_of_mixed_eigenvectors_are_the_eigenvalues(graph, functions, laplacian):
    spectrum = dense_spectrum(graph, laplacian)
    lowest = torch.from_numpy(spectrum.vectors[:, :N_FUNCTIONS])
    mixing = functions[:N_FUNCTIONS]  # any invertible matrix
    values, rotation = rayleigh_ritz(*sums(lowest @ mixing, graph, laplacian))
    mean_degree = dense_laplacian(graph)[1].mean() if laplacian == "unnormalized" else 1.0
    np.testing.assert_allclose(values * mean_degree, spectrum.values[:N_FUNCTIONS], atol=1e-10)
    found = lowest @ mixing @ rotation
    mass = torch.from_numpy(spectrum.mass)
    for column in range(N_FUNCTIONS):
        angle = sin2_principal_angles(found[:, [column]], lowest[:, [column]], mass)
        assert float(angle) < 1e-12


def test_ritz_values_bound_the_eigenvalues_from_above(graph, functions):
    values, _ = rayleigh_ritz(*sums(functions, graph))
    assert (values.numpy() >= dense_spectrum(graph).values[:N_FUNCTIONS]).all()


def test_sums_of_float32_functions_are_accumulated_in_float64(graph, functions):
    energy, gram_matrix = sums(functions.float(), graph)
    assert energy.dtype == gram_matrix.dtype == torch.float64
    exact, exact_gram = sums(functions.float().double(), graph)
    torch.testing.assert_close(energy, exact, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(gram_matrix, exact_gram, rtol=1e-14, atol=1e-15)


def full_objective(functions, graph, objective, epsilon):
    """The same objective, differentiated by autograd through inverse and determinant."""
    energy, gram_matrix = sums(functions, graph)
    quotient = torch.linalg.solve(gram_matrix, energy)
    if objective == "trace":
        return quotient.trace()
    return torch.logdet(quotient + epsilon * torch.eye(N_FUNCTIONS, dtype=torch.float64))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_surrogate_has_the_gradient_and_value_of_the_whole_objective(graph, functions, objective, scale):
    f = (scale * functions).requires_grad_()
    expected = full_objective(f, graph, objective, 1e-3)
    (expected_gradient,) = torch.autograd.grad(expected, f)
    energy, gram_matrix = sums(f, graph)
    linear = linearize(energy, cholesky_factor(gram_matrix, jitter=0.0), objective=objective, epsilon=1e-3)
    (gradient,) = torch.autograd.grad(linear.surrogate(energy, gram_matrix), f)
    assert float(linear.value) == pytest.approx(float(expected.detach()), rel=1e-10)
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-8
    assert not linear.energy_coefficient.requires_grad


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_shares_of_the_surrogate_add_up_to_the_gradient_of_all_edges(graph, functions, objective):
    f = functions.requires_grad_()
    batch = all_edges(f, graph)
    energy, gram_matrix = sums(f, graph)
    total = linearize(energy, cholesky_factor(gram_matrix, jitter=0.0), objective=objective)
    (whole,) = torch.autograd.grad(total.surrogate(*sums(f, graph)), f)
    cut, pieces = 130, torch.zeros_like(f)
    for edges, mass in ((slice(0, cut), batch.mass * 0.3), (slice(cut, None), batch.mass * 0.7)):
        share = total.surrogate(
            dirichlet_energy(f, batch.heads[edges], batch.tails[edges], batch.weights[edges]), gram(f, mass)
        )
        pieces += torch.autograd.grad(share, f)[0]
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)


def test_the_factor_sets_the_scale_of_the_functions(graph, functions):
    energy, gram_matrix = sums(functions, graph)
    factor = cholesky_factor(gram_matrix)
    assert float(linearize(energy, 2 * factor).value) == pytest.approx(float(linearize(energy, factor).value) / 4)


def test_logdet_stops_caring_below_epsilon(graph):
    spectrum = dense_spectrum(graph)
    lowest = torch.from_numpy(spectrum.vectors[:, :N_FUNCTIONS])
    energy, gram_matrix = sums(lowest, graph)
    found = linearize(energy, cholesky_factor(gram_matrix, jitter=0.0), objective="logdet", epsilon=0.05).value
    assert float(found) == pytest.approx(np.log(spectrum.values[:N_FUNCTIONS] + 0.05).sum(), rel=1e-10)


def test_rotation_whitens_and_diagonalises_with_values_in_order(graph, functions):
    correlated = functions + 100 * functions[:, 2:3]
    energy, gram_matrix = sums(correlated * torch.tensor([1.0, 1e-3, 1e2, 1.0, 30.0]), graph)
    values, rotation = rayleigh_ritz(energy, gram_matrix)
    identity = torch.eye(N_FUNCTIONS, dtype=torch.float64)
    torch.testing.assert_close(rotation.T @ gram_matrix @ rotation, identity, rtol=0, atol=1e-10)
    torch.testing.assert_close(rotation.T @ energy @ rotation, torch.diag(values), rtol=0, atol=1e-10)
    assert (values.diff() > 0).all()


def test_aligned_functions_are_orthonormal_and_no_rotation_brings_them_nearer():
    generator = torch.Generator().manual_seed(0)
    known = torch.linalg.qr(torch.randn(N_ROWS, N_FUNCTIONS, generator=generator, dtype=torch.float64)).Q
    noise = torch.randn(N_ROWS, N_FUNCTIONS, generator=generator, dtype=torch.float64)
    learned = (known + 0.05 * noise) @ (torch.eye(N_FUNCTIONS, dtype=torch.float64) + 0.2 * noise[:N_FUNCTIONS])
    found = learned @ aligned(learned.T @ learned, learned.T @ known)
    torch.testing.assert_close(found.T @ found, torch.eye(N_FUNCTIONS, dtype=torch.float64))
    for seed in range(20):
        turn = torch.randn(N_FUNCTIONS, N_FUNCTIONS, generator=generator.manual_seed(seed), dtype=torch.float64)
        turned = found @ torch.linalg.matrix_exp(0.05 * (turn - turn.T))
        assert (found - known).square().sum() < (turned - known).square().sum()


def test_aligned_functions_are_as_many_as_are_independent_and_match_the_first_known_ones():
    known = torch.eye(N_ROWS, dtype=torch.float64)[:, :N_FUNCTIONS]
    learned = known[:, [0, 1, 2, 2, 1]] + 0.0
    found = learned @ aligned(learned.T @ learned, learned.T @ known)
    torch.testing.assert_close(found, known[:, :3])


def test_signs_of_ritz_functions_are_determined(graph, functions):
    values, rotation = rayleigh_ritz(*sums(functions, graph))
    largest = rotation.gather(0, rotation.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()
    # eigh may return either sign: that of the outcome depends on the functions alone
    flips = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    flipped_values, flipped = rayleigh_ritz(*sums(functions * flips, graph))
    torch.testing.assert_close(flipped_values, values, rtol=1e-10, atol=0)
    largest = flipped.gather(0, flipped.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e-3])
def test_functions_that_others_determine_are_left_out(graph, functions, scale):
    dependent = scale * (functions[:, :1] - 2 * functions[:, 3:4])
    values, rotation = rayleigh_ritz(*sums(torch.cat([functions, dependent], dim=1), graph))
    expected, _ = rayleigh_ritz(*sums(functions, graph))
    assert rotation.shape == (N_FUNCTIONS + 1, N_FUNCTIONS)
    torch.testing.assert_close(values, expected, rtol=1e-8, atol=0)


def test_functions_that_float32_can_hardly_tell_apart_are_no_error(graph, functions):
    generator = torch.Generator().manual_seed(0)
    mixed = functions @ torch.randn(N_FUNCTIONS, 20, generator=generator, dtype=torch.float64)
    noisy = torch.cat([functions[:, :1], mixed.float().double()], dim=1)  # rounding makes them independent, barely
    values, rotation = rayleigh_ritz(*sums(noisy, graph))
    torch.testing.assert_close(values, rayleigh_ritz(*sums(functions, graph))[0], rtol=1e-5, atol=0)
    assert rotation.shape == (21, N_FUNCTIONS)


def test_a_gram_matrix_that_is_not_finite_is_refused(graph, functions):
    energy, gram_matrix = sums(functions, graph)
    gram_matrix[1, 1] = torch.inf
    with pytest.raises(RankDeficientError, match="holds NaN or infinity"):
        rayleigh_ritz(energy, gram_matrix)


def test_function_that_is_zero_everywhere_is_left_out(graph, functions):
    dead = torch.cat([torch.zeros(N_ROWS, 1, dtype=torch.float64), functions], dim=1)
    values, rotation = rayleigh_ritz(*sums(dead, graph))
    torch.testing.assert_close(values, rayleigh_ritz(*sums(functions, graph))[0])
    assert (rotation[0] == 0).all()


def test_whitened_energy_is_symmetric(graph, functions):
    energy, gram_matrix = sums(functions, graph)
    quotient = whitened_energy(energy, cholesky_factor(gram_matrix))
    assert torch.equal(quotient, quotient.T)


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (
            ("spectral.rayleigh", "spectral.orthonormalize", "spectral.diagnostics", "spectral.affinity"),
            {"ray", "faiss", "pyarrow"},
        ),
        (("storage.source.packing", "orchestration.stragglers", "orchestration.calls"), {"torch", "faiss"}),
        (("training.spectral", "stages.train", "stages.calibrate", "stages.embed", "estimators.spectral_net"), {"ray"}),
    ],
)
def test_modules_load_without(modules, forbidden):
    code = "import sys, " + ", ".join(f"distspectral.{name}" for name in modules)
    code += f"; import distspectral; distspectral.SpectralNet; print(sorted({forbidden} & set(sys.modules)))"
    if "faiss" in forbidden:
        code = code.replace("import distspectral; distspectral.SpectralNet; ", "")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
