"""Nearly exact eigenvectors of a graph's Laplacian, from functions that a network learned.

Shape letters: N rows, E functions learned, P wanted, M known kernel vectors.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from distspectral.spectral.bounds import best_of_block, gain_needed, n_near
from distspectral.spectral.subspace import (
    N_RANDOM,
    UNFILTERED,
    Filters,
    Floats,
    Product,
    Subspace,
    most_passes,
    subspace_iteration,
)

ENOUGH = 1e-4
"""Mean error of the functions at which they are exact enough to learn from: networks come as near on the smallest sets
alone."""
POLISH_BYTES = 1 << 33
"""Memory of a polish at most, since a task that needs more finds no place on common machines: some three million rows
of 23 functions and 15 neighbours."""


def polish_bytes(n_rows: float, n_functions: int, n_neighbors: int) -> float:
    """Return the memory of a polish: nine blocks of float64, and the symmetric graph while it is made."""
    return n_rows * (9 * 8 * (n_functions + N_RANDOM) + 48 * n_neighbors)


def can_polish(n_rows: float, n_functions: int, n_neighbors: int) -> bool:
    """Return whether so many rows are polished."""
    return polish_bytes(n_rows, n_functions, n_neighbors) <= POLISH_BYTES


@dataclasses.dataclass(frozen=True)
class Polished:
    """Nearly exact eigenvectors.

    Attributes:
        vectors: (N, E) orthonormal, by rising eigenvalue, the constant function's first; zeros where there are no more.
        values: (E,) ascending, those of the kernel included; fewer where there are no more.
        filters: that the vectors went through, from random columns on.
        converged: whether they are as exact as was wanted; else the passes were spent before.
    """

    vectors: Floats
    values: Floats
    filters: Filters
    converged: bool


def polished(
    product: Product,
    functions: Floats,
    kernel: Any,
    constant: Floats,
    n_kept: int,
    most: float,
    entries: int,
) -> Polished:
    """Return the lowest eigenvectors, as many as functions, of which the first P are to be exact.

    Where the operator has as many eigenvectors of the value 0 as are wanted, any of their combinations is exact: those
    are returned that lie nearest to what was learned.

    Args:
        product: with the operator.
        functions: (N, E) learned, in any basis, E at least P.
        kernel: (N, M) orthonormal, SciPy sparse, all eigenvectors of the value 0.
        constant: (N,) the constant function in symmetric form, in the span of these.
        n_kept: P.
        most: no eigenvalue of the operator is larger.
        entries: of the operator, on which the number of passes depends.
    """
    n_known, n_functions = kernel.shape[1], functions.shape[1]
    if n_known >= n_kept:
        found = _padded(_led_by(constant, kernel, np.asarray(kernel.T @ functions)), n_functions)
        return Polished(found, np.zeros(min(n_known, n_functions)), UNFILTERED, True)
    needed = gain_needed(len(functions))
    n_passes = most_passes(entries * (n_functions + N_RANDOM))
    for state in subspace_iteration(product, functions, np.asarray(kernel.toarray()), n_kept - n_known, most):
        values = np.append(np.zeros(n_known), state.pairs.values)
        converged = _are_exact(state, values, n_known, n_kept, state.reach(needed))
        if converged or state.filters.n_passes >= n_passes:
            break
    found = np.hstack([_led_by(constant, kernel, np.eye(n_known)), state.pairs.vectors])
    return Polished(_padded(found, n_functions), values[:n_functions], state.filters, converged)


def _padded(vectors: Floats, n_functions: int) -> Floats:
    """Return the first columns of vectors (N, any), zeros in place of missing ones."""
    found = vectors[:, :n_functions]
    return np.pad(found, ((0, 0), (0, n_functions - found.shape[1])))


def _led_by(constant: Floats, kernel: Any, coefficients: Floats) -> Floats:
    """Return orthonormal combinations of kernel vectors: the constant function, then what most of the others share.

    Args:
        constant: (N,) in the kernel's span.
        kernel: (N, M).
        coefficients: (M, any number) of the others.
    """
    first = np.asarray(kernel.T @ constant)
    first /= np.linalg.norm(first)
    others = np.linalg.svd(coefficients - np.outer(first, first @ coefficients), full_matrices=False)[0]
    return np.asarray(kernel @ np.linalg.qr(np.column_stack([first, others]))[0])


def _are_exact(state: Subspace, values: Floats, n_known: int, n_kept: int, reach: float) -> bool:
    """Whether the lowest P functions are as exact as is wanted, and none is thought to be missed.

    Those whose eigenvalues are near the P-th may be mixed with it.

    Args:
        state: of the polish.
        values: of the kernel and of the block, ascending.
        n_known: M.
        n_kept: P.
        reach: no eigenvector of a smaller value is thought to be missed.
    """
    if n_kept >= len(values):  # right if these are all that the rows carry
        return state.is_whole
    residuals = np.append(np.zeros(n_known), state.pairs.residuals)
    errors = (best_of_block(residuals, values, n, reach)[0] for n in {n_kept, n_near(values, n_kept)})
    return min(errors) <= ENOUGH * n_kept
