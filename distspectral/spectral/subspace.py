"""Eigenvectors from good guesses: block subspace iteration, filtered by Chebyshev polynomials.

A network's functions are a start from which a few products with the operator reach the exact eigenvectors. A few
random columns go along: what the guesses miss altogether grows out of them.
Shape letters: N rows, E functions guessed, B columns of the block, M known kernel vectors.
Reference: Zhou, Saad, Tiago and Chelikowsky, Self-consistent-field calculations using Chebyshev-filtered subspace
iteration, J. Comput. Phys. 2006.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Product = Callable[[Floats], Floats]
"""Of (N, any number of columns) with a symmetric positive semi-definite operator."""

N_RANDOM = 4
"""Columns that the guesses know nothing of. A missed function hides if all are orthogonal to it: with four that are
normal, one that is ten times smaller than expected in all of them comes once in 50,000 times."""
DEGREE = 10
"""Of the polynomial of a round: higher ones save Rayleigh-Ritz steps and lose what these would have taught."""
DEPENDENT = 1e-10
"""Share of a column's square below which a direction is rounding."""
BOUND_STEPS = 10
"""Of Lanczos, for the operator's largest eigenvalue."""


@dataclasses.dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenvectors of a symmetric operator.

    Attributes:
        values: (B,) ascending, where they are Ritz values.
        vectors: (N, B) orthonormal.
        images: (N, B) of the operator.
    """

    values: Floats
    vectors: Floats
    images: Floats

    @property
    def residuals(self) -> Floats:
        """(B,) lengths of S v - value v, to rounding no smaller: an eigenvalue lies as near to each value."""
        squares, rounding = np.einsum("ij,ij->j", self.images, self.images), 16 * np.finfo(np.float64).eps
        left = squares - self.values**2  # since v'S v is the value
        return np.asarray(np.sqrt(np.maximum(left, 0) + rounding * squares))


@dataclasses.dataclass(frozen=True)
class Subspace:
    """The state after a round.

    Attributes:
        pairs: the block, without the kernel.
        n_passes: products of the whole block so far, the ones for bounds included.
        bands: where the filters so far damped, from and to; None of rows whose whole spectrum was computed.
    """

    pairs: RitzPairs
    n_passes: int
    bands: tuple[tuple[float, float], ...] | None

    def gain(self, value: float) -> float:
        """Return the natural logarithm of how much more the filters have lifted eigenvectors up to a value.

        Against those beyond the block, which they damp; infinity where nothing lies beyond it.
        """
        if self.bands is None:
            return math.inf
        places = ((high + low - 2 * value) / (high - low) for low, high in self.bands)
        return sum(DEGREE * math.acosh(max(place, 1.0)) for place in places)


def ritz_pairs(block: Floats, images: Floats) -> RitzPairs:
    """Return the Ritz pairs of the span of a block (N, any), of which dependent columns add nothing."""
    basis = _independent(block)
    energy = basis.T @ (block.T @ images) @ basis
    values, vectors = np.linalg.eigh((energy + energy.T) / 2)
    rotation = basis @ vectors
    return RitzPairs(values, block @ rotation, images @ rotation)


def _independent(block: Floats) -> Floats:
    """Return the combinations (E, any) of a block's columns that are orthonormal and span what these span."""
    gram = block.T @ block
    lengths = np.sqrt(gram.diagonal())
    scale = 1 / np.where(lengths > 0, lengths, 1)
    shares, directions = np.linalg.eigh(gram * scale * scale[:, None])
    kept = shares > DEPENDENT
    return np.asarray(scale[:, None] * (directions[:, kept] / np.sqrt(shares[kept])))


def rayleigh_pairs(vectors: Floats, images: Floats) -> RitzPairs:
    """Return orthonormal vectors (N, B) as they are, with their Rayleigh quotients, which need not ascend."""
    return RitzPairs(np.einsum("ij,ij->j", vectors, images), vectors, images)


def subspace_iteration(
    product: Product, guesses: Floats, kernel: Floats, n_wanted: int, most: float, seed: int = 0
) -> Iterator[Subspace]:
    """Yield ever better lowest eigenpairs outside the kernel; the caller stops when they are good enough.

    Args:
        product: with the operator.
        guesses: (N, E) of the eigenvectors, in any basis; rows of zeros stay zero. Random columns take the place of
            what fewer independent ones than are wanted lack.
        kernel: (N, M) orthonormal, eigenvectors of the value 0, all of them; they are kept out of the block.
        n_wanted: eigenpairs outside the kernel, which the filters leave alone, at least 1 and at most B.
        most: no eigenvalue is larger.
        seed: of the random columns.
    """
    rng = np.random.default_rng(seed)
    alive = np.any(guesses != 0, axis=1)
    n_alive = int(np.count_nonzero(alive))
    if 3 * (guesses.shape[1] + N_RANDOM) >= n_alive:  # a block nearly as wide as the space: decompose it whole
        whole = np.zeros((len(alive), n_alive))
        whole[alive] = np.eye(n_alive)
        whole = whole - kernel @ (kernel.T @ whole)
        yield Subspace(ritz_pairs(whole, product(whole)), 1, None)
        return
    guesses = _outside_kernel(guesses, kernel)
    guesses = guesses @ _independent(guesses)
    n_guessed = max(guesses.shape[1], n_wanted)
    n_random = n_guessed - guesses.shape[1] + N_RANDOM
    block = np.hstack([guesses, rng.normal(size=(len(alive), n_random)) * alive[:, None]])
    del guesses
    high = min(most, _upper_bound(product, rng.normal(size=(len(alive), 1)) * alive[:, None]))
    n_passes, bands = 1, tuple[tuple[float, float], ...]()
    while True:
        block = block - kernel @ (kernel.T @ block)
        pairs = ritz_pairs(block, product(block))
        n_passes += 1
        yield Subspace(pairs, n_passes, bands)
        low = float(pairs.values[min(n_guessed, len(pairs.values) - 1)])
        last = float(pairs.values[min(n_wanted, len(pairs.values)) - 1])
        low = min(max(low, 1.01 * last, 1e-12 * high), 0.9 * high)
        block = _filtered(product, pairs, low, high)
        n_passes += DEGREE - 1
        bands = (*bands, (low, high))


def _outside_kernel(guesses: Floats, kernel: Floats) -> Floats:
    """Return what is left of guesses without their part in the kernel, but for those of which only rounding is."""
    lengths = np.linalg.norm(guesses, axis=0)
    left = guesses - kernel @ (kernel.T @ guesses)
    return np.asarray(left[:, np.linalg.norm(left, axis=0) > math.sqrt(DEPENDENT) * lengths])


def _filtered(product: Product, pairs: RitzPairs, low: float, high: float) -> Floats:
    """Return T(S) V, T the Chebyshev polynomial that is at most 1 between ``low`` and ``high`` and grows below."""
    centre, half = (high + low) / 2, (high - low) / 2
    before, now = pairs.vectors, (pairs.images - centre * pairs.vectors) / half
    for _ in range(DEGREE - 1):
        after = product(now)
        after -= centre * now
        after *= 2 / half
        after -= before
        before, now = now, after
    return now


def _upper_bound(product: Product, start: Floats) -> float:
    """Return a bound of the largest eigenvalue: that of some steps of Lanczos and the length of what they leave.

    Reference: Zhou and Li, Bounding the spectrum of large Hermitian matrices, Linear Algebra Appl. 2011.
    """
    now, before, beta = start / np.linalg.norm(start), np.zeros_like(start), 0.0
    diagonal, beside = [], []
    for _ in range(BOUND_STEPS):
        after = product(now) - beta * before
        diagonal.append(float((now * after).sum()))
        after -= diagonal[-1] * now
        beta = float(np.linalg.norm(after))
        beside.append(beta)
        if beta < 1e-12:
            break
        before, now = now, after / beta
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    return float(np.linalg.eigvalsh(matrix)[-1]) + beside[-1]
