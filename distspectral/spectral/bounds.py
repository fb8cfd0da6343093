"""What residuals of Ritz vectors prove of their errors, and when no eigenvector is thought to be missed.

With r = |S v - lambda v|, the part of a normalised v outside the span of exact eigenvectors has a length of at most
r / (mu - lambda), mu a lower bound of all other eigenvalues (Davis and Kahan's sine theorem for one vector). The error
is its square.
Shape letters: N rows, P or n vectors judged, m of a block of B inside which they lie.
References: Davis and Kahan, The rotation of eigenvectors by a perturbation III, SIAM J. Numer. Anal. 1970; Parlett,
The Symmetric Eigenvalue Problem, chapters 10 and 11.
"""

from __future__ import annotations

import math

import numpy as np

from distspectral.spectral.subspace import Floats

NEAR = 0.1
"""Eigenvalues beyond the kept ones that are larger by this part of the last kept one at most are near to it: a function
mixed with theirs is about as smooth as its own."""
CONFIDENCE = 10.0
"""How much larger than all else a missed function must have grown before it counts as found."""


def errors(residuals: Floats, values: Floats, beyond: float) -> Floats:
    """Return the bound (P,) of functions' errors, 1 where it says nothing.

    Args:
        residuals: (P,).
        values: (P,) their Ritz values.
        beyond: no eigenvalue that is not counted among the exact functions' is smaller.
    """
    gaps = np.maximum(beyond - values, 0)
    bound = np.divide(residuals, gaps, out=np.full(len(values), math.inf), where=gaps > 0)
    return np.asarray(np.minimum(np.where(residuals == 0, 0, bound), 1) ** 2)


def n_near(values: Floats, n_kept: int) -> int:
    """Return how many of ascending values are at most NEAR above the P-th, one at least left out as a bound."""
    near = int(np.count_nonzero(values <= values[n_kept - 1] * (1 + NEAR)))
    return max(n_kept, min(near, len(values) - 1))


def gain_needed(n_rows: int) -> float:
    """Return the logarithm of what a missed function of N rows must have grown by, from one in sqrt(N) of a column."""
    return math.log(CONFIDENCE * math.sqrt(n_rows))


def errors_of_block(
    residuals: Floats, values: Floats, n_exact: int, n_inside: int, reach: float = math.inf
) -> tuple[Floats, float]:
    """Return the bound (n,) of the errors of the first n of m Ritz vectors, and a lower bound of the eigenvalue beyond.

    A residual is orthogonal to all m vectors, so it points beyond them, where the gap is wide. With ``outer`` no larger
    than any eigenvalue but the lowest m, t, the sum of (r_i / (outer - lambda_i))^2 over all m, bounds the squares of
    the tilt between their span and that of the exact m. The part of vector i outside the exact m is bounded by its own
    summand. Its part among the exact n + 1 to m is bounded by t (r_i / (next - lambda_i))^2, for these leave the span
    by no more than the tilt. The operator is at least (1 - t) outer on what is orthogonal to the m vectors; a Schur
    complement then leaves ``next``, the eigenvalue n + 1, no further below its Ritz value than the sum of r_i^2 over
    the distance from there.

    Args:
        residuals: (B,) of all Ritz vectors.
        values: (B,) ascending, no eigenvalue is negative.
        n_exact: n.
        n_inside: m, from n to B - 1.
        reach: no eigenvector of a smaller value is missed.
    """
    first, outer = values[:n_exact], min(float(values[n_inside] - residuals[n_inside]), reach)
    outside = errors(residuals[:n_exact], first, outer)
    if n_inside == n_exact:
        return outside, outer
    beyond = min(float(values[n_exact] - residuals[n_exact]), reach)
    tilt = float(errors(residuals[:n_inside], values[:n_inside], outer).sum())
    distance = (1 - tilt) * outer - values[n_exact]
    if distance > 0:
        beyond = max(beyond, float(values[n_exact] - np.square(residuals[:n_inside]).sum() / distance))
    gaps = np.maximum(beyond - first, 1e-100)
    among = tilt * np.square(residuals[:n_exact] / gaps)
    return np.minimum(outside + among, 1), beyond


def best_of_block(residuals: Floats, values: Floats, n_exact: int, reach: float) -> tuple[float, float]:
    """Return the least sum of the errors that :func:`errors_of_block` bounds, for any m, and the largest bound beyond.

    Arguments are those of that function.
    """
    bounds = [errors_of_block(residuals, values, n_exact, m, reach) for m in range(n_exact, len(values))]
    return min(float(each.sum()) for each, _ in bounds), max(beyond for _, beyond in bounds)
