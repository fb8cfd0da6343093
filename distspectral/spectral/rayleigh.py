"""Everything is a Rayleigh quotient of an edge distribution: its two matrices, its gradient, its solution.

For functions ``f: R^D -> R^E`` and edges (i, j) drawn with probability proportional to their affinity,

    energy  Q = E[(f_i - f_j)(f_i - f_j)'] / 2          Dirichlet energy
    gram    G = E[f_i f_i']  under the vertex mass      (degree: random walk; uniform: unnormalised)

and the eigenvalues of G^-1 Q, the Ritz values, estimate the smallest eigenvalues of the Laplacian of
(W + W')/2 one by one. Neither a symmetrised matrix nor a degree vector is ever built.

Shape letters: B rows of a batch, M edges of a batch, E functions.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from distspectral.errors import RankDeficientError

Laplacian = Literal["random_walk", "unnormalized"]
Objective = Literal["trace", "logdet"]


def dirichlet_energy(f: Tensor, heads: Tensor, tails: Tensor, weights: Tensor) -> Tensor:
    """Return this rank's sum of w (f_i - f_j)(f_i - f_j)' / 2 over its edges.

    Args:
        f: (B, E) outputs of the network, any float dtype.
        heads: (M,) int64 row in ``f`` of each edge's first end.
        tails: (M,) int64 row in ``f`` of each edge's second end.
        weights: (M,) float64, already divided by the global total if an expectation is wanted.

    Returns:
        (E, E) float64, symmetric positive semi-definite.

    Communication: none, the caller adds ranks. Gradient: flows to ``f``.
    """
    f = f.double()
    difference = f.index_select(0, heads) - f.index_select(0, tails)
    return difference.T @ (difference * weights[:, None]) / 2


def gram(f: Tensor, mass: Tensor) -> Tensor:
    """Return this rank's sum of m f f' over its rows.

    Args:
        f: (B, E) outputs of the network, any float dtype.
        mass: (B,) float64 measure of each row: half the weight of the edges it ends for the random-walk
            Laplacian, 1 / n for the unnormalised one.

    Returns:
        (E, E) float64, symmetric positive semi-definite.

    Communication: none, the caller adds ranks. Gradient: flows to ``f``.
    """
    f = f.double()
    return f.T @ (f * mass[:, None])


@dataclasses.dataclass(frozen=True)
class Linearization:
    """The objective at the current functions and its exact linear form in (Q, G).

    Attributes:
        value: () float64, the objective.
        energy_coefficient: (E, E) float64, derivative with respect to Q.
        gram_coefficient: (E, E) float64, minus the derivative with respect to G.
    """

    value: Tensor
    energy_coefficient: Tensor
    gram_coefficient: Tensor

    def surrogate(self, energy: Tensor, gram: Tensor) -> Tensor:
        """Return <dQ, Q_rank> - <dG, G_rank>, whose gradient summed over ranks is the objective's.

        Args:
            energy: (E, E) this rank's differentiable share of Q.
            gram: (E, E) this rank's differentiable share of G.
        """
        return (self.energy_coefficient * energy).sum() - (self.gram_coefficient * gram).sum()


def linearize(
    energy: Tensor, factor: Tensor, *, objective: Objective = "trace", epsilon: float = 1e-3
) -> Linearization:
    """Return the objective of G^-1 Q and its derivatives, from matrices already summed over ranks.

    With L = R^-1 Q R^-T (R the Cholesky factor of G), the objective is tr L, or log det(L + epsilon I),
    which weighs small eigenvalues relatively. Its derivative M = I or (L + epsilon I)^-1 gives

        d/dQ = R^-T M R^-1,      d/dG = -R^-T M L R^-1.

    Nothing is differentiated through a factorisation or a collective.

    Args:
        energy: (E, E) float64 global Q.
        factor: (E, E) float64 lower-triangular Cholesky factor R of the global G, or of its moving average.
        objective: ``trace`` (SpectralNet) or ``logdet``.
        epsilon: eigenvalues far below it no longer count in ``logdet``.

    Communication: none. Host reads: none; what is not finite goes through.
    Reference: Shaham et al., SpectralNet, ICLR 2018 (trace objective).
    """
    energy, factor = energy.detach(), factor.detach()
    quotient = whitened_energy(energy, factor)
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    if objective == "trace":
        value, derivative = quotient.trace(), identity
    else:
        # positive definite: the unchecked factor spares a read of its status
        root = torch.linalg.cholesky_ex(quotient + epsilon * identity).L
        half = torch.linalg.solve_triangular(root, identity, upper=False)
        value, derivative = 2 * root.diagonal().log().sum(), half.T @ half
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    return Linearization(
        value=value,
        energy_coefficient=inverse.T @ derivative @ inverse,
        gram_coefficient=inverse.T @ derivative @ quotient @ inverse,
    )


def whitened_energy(energy: Tensor, factor: Tensor) -> Tensor:
    """Return R^-1 Q R^-T, symmetric (E, E): the energy of the functions that R orthonormalises."""
    left = torch.linalg.solve_triangular(factor, energy, upper=False)
    quotient: Tensor = torch.linalg.solve_triangular(factor, left.T, upper=False)
    return (quotient + quotient.T) / 2


DEPENDENT = 1e-8
"""Share of one function's mass below which a direction is rounding."""


def rayleigh_ritz(energy: Tensor, gram: Tensor, *, tolerance: float = DEPENDENT) -> tuple[Tensor, Tensor]:
    """Return the Ritz values, ascending, and the rotation that turns f into Ritz functions.

    Solves Q t = lambda G t: with B of :func:`independent_basis` and V the eigenvectors of B'QB, T = B V gives T'GT = I
    and T'QT = diag(lambda). Functions that depend on others over these rows lower P, no more. The sign of each column
    is fixed so that its largest coefficient is positive.

    Args:
        energy: (E, E) float64 global Q.
        gram: (E, E) float64 global G.
        tolerance: see :func:`independent_basis`.

    Returns:
        values (P,) float64 and rotation T (E, P) float64, P <= E; the Ritz functions are ``f @ T``.

    Raises:
        RankDeficientError: ``gram`` is not finite.
    """
    basis = independent_basis(gram, tolerance)
    quotient = basis.T @ energy @ basis
    values, vectors = torch.linalg.eigh((quotient + quotient.T) / 2)
    rotation = basis @ vectors
    largest = rotation.gather(0, rotation.abs().argmax(0, keepdim=True))
    return values, rotation * torch.where(largest < 0, -1.0, 1.0)


def aligned(gram: Tensor, moments: Tensor) -> Tensor:
    """Return the rotation that turns f into orthonormal functions as near as possible to others, which are known.

    With B of :func:`independent_basis` and U S V' the singular value decomposition of B'M, T = B U V' gives T'GT = I
    and the smallest sum of squared distances. Where f spans fewer dimensions, as many of the first functions are
    matched.

    Args:
        gram: (E, E) float64 global G of f.
        moments: (E, P) float64 M, sum of m f h' over rows of mass m with the known functions h.

    Returns:
        (E, P) float64 T, of fewer columns where f spans fewer dimensions.

    Raises:
        RankDeficientError: ``gram`` is not finite.

    Reference: Schoenemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 1966.
    """
    basis = independent_basis(gram, DEPENDENT)
    inside = basis.T @ moments[:, : basis.shape[1]]
    left, _, right = torch.linalg.svd(inside, full_matrices=False)
    rotation: Tensor = basis @ (left @ right)
    return rotation


def independent_basis(gram: Tensor, tolerance: float) -> Tensor:
    """Return B with B'GB = I whose functions ``f @ B`` span what f spans.

    The first function is kept as it is, since here it is the constant: its energy is zero and stays zero to the bit.
    Of the others, less the first, each of unit mass, eigenvectors of their Gram matrix tell directions from rounding;
    a Cholesky factor, which takes them one by one, does not where several are nearly dependent.

    Args:
        gram: (E, E) float64 G.
        tolerance: share of one function's mass that a direction must have to count.

    Returns:
        (E, P) float64, P <= E.

    Raises:
        RankDeficientError: ``gram`` is not finite.

    Reference: Golub and Van Loan, Matrix Computations, 4th edition, section 8.7 (canonical orthogonalisation).
    """
    mass = gram.diagonal()
    if not torch.isfinite(gram).all():
        raise RankDeficientError(
            f"the Gram matrix of {len(gram)} functions holds NaN or infinity; train again at a lower "
            "train.learning_rate",
            ["train.learning_rate"],
        )
    inverse = torch.where(mass > 0, mass.rsqrt(), 0.0)  # dependence knows no units; a function that is 0 adds nothing
    correlation = gram * inverse * inverse[:, None]
    first = correlation[0, 1:]
    shares, directions = torch.linalg.eigh(correlation[1:, 1:] - first[:, None] * first)
    kept = shares > tolerance
    others = directions[:, kept] / shares[kept].sqrt()
    basis = torch.zeros(len(gram), 1 + others.shape[1], dtype=gram.dtype, device=gram.device)
    basis[0, 0], basis[0, 1:], basis[1:, 1:] = 1.0, -(first @ others), others
    return (basis * inverse[:, None])[:, int(mass[0] == 0) :]
