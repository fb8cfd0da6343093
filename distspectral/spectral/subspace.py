"""Eigenvectors from good guesses: block subspace iteration, filtered by Chebyshev polynomials.

A network's functions are a start from which a few products with the operator reach the exact eigenvectors. A few
random columns go along: what the guesses miss altogether grows out of them. Filters of blocks that no cache holds
multiply in float32 while its rounding is far below what is left to gain; all else is in float64.
Shape letters: N rows, E functions guessed, B columns of the block, M known kernel vectors.
Reference: Zhou, Saad, Tiago and Chelikowsky, Self-consistent-field calculations using Chebyshev-filtered subspace
iteration, J. Comput. Phys. 2006.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Product = Callable[[NDArray[Any]], NDArray[Any]]
"""Of (N, any number of columns) with a symmetric positive semi-definite operator, in the precision of the columns."""

N_RANDOM = 4
"""Columns that the guesses know nothing of. A missed function hides if all are orthogonal to it: with four that are
normal, one that is ten times smaller than expected in all of them comes once in 50,000 times."""
DEGREE = 10
"""Of the polynomial of a round: higher ones save Rayleigh-Ritz steps and lose what these would have taught."""
DEPENDENT = 1e-10
"""Share of a column's square below which a direction is rounding."""
SINGLE_ENTRIES, ROUGH = 1 << 23, 1e-5
"""Least entries of a block that is filtered in float32, and residual above which it is; float32 leaves some 4e-7."""
BOUND_STEPS = 10
"""Of Lanczos, for the operator's largest eigenvalue."""
WORK = 1.5e11
"""Entries of the graph times columns of a polish, at most: some two minutes of one core."""
FEWEST_PASSES, MOST_PASSES = 24, 400
"""Of a polish, whatever the graph."""


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
class Filters:
    """What a block went through.

    Attributes:
        bands: where filters damped, from and to.
        n_passes: products of the whole block, the one for bounds included.
        end: where eigenvalues begin, about, whose eigenvectors have no place in the block.
    """

    bands: tuple[tuple[float, float], ...] = ()
    n_passes: int = 0
    end: float = 0.0

    def gain(self, value: float) -> float:
        """Return the natural logarithm of how much more eigenvectors up to a value grew than those beyond the block."""
        return sum(_log_growth(value, *band) - _log_growth(self.end, *band) for band in self.bands)

    def reach(self, gain: float) -> float:
        """Return the value below which eigenvectors have so much gain, 0 if none has."""
        if self.gain(0.0) < gain:
            return 0.0
        return float(scipy.optimize.brentq(lambda value: self.gain(value) - gain, 0.0, self.end))


def _log_growth(value: float, low: float, high: float) -> float:
    """Return the logarithm of a filter's polynomial, about, 0 where it damps."""
    return DEGREE * math.acosh(max((high + low - 2 * value) / (high - low), 1.0))


UNFILTERED = Filters()


@dataclasses.dataclass(frozen=True)
class Subspace:
    """The state after a round.

    Attributes:
        pairs: the block, without the kernel.
        filters: that it went through.
        is_whole: whether nothing lies beyond it, for the whole spectrum was computed.
    """

    pairs: RitzPairs
    filters: Filters
    is_whole: bool = False

    def reach(self, gain: float) -> float:
        """Return the value below which eigenvectors have so much gain, infinity where nothing lies beyond the block."""
        return math.inf if self.is_whole else self.filters.reach(gain)


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
    product: Product,
    guesses: Floats,
    kernel: Floats,
    n_wanted: int,
    most: float,
    seed: int = 0,
    filters: Filters = UNFILTERED,
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
        filters: that the guesses come from, those of an earlier iteration, random columns included.
    """
    rng = np.random.default_rng(seed)
    alive = np.any(guesses != 0, axis=1)
    n_alive = int(np.count_nonzero(alive))
    if 3 * (guesses.shape[1] + N_RANDOM) >= n_alive:  # a block nearly as wide as the space: decompose it whole
        whole = np.zeros((len(alive), n_alive))
        whole[alive] = np.eye(n_alive)
        whole = whole - kernel @ (kernel.T @ whole)
        yield Subspace(ritz_pairs(whole, product(whole)), Filters(n_passes=1), is_whole=True)
        return
    guesses = _outside_kernel(guesses, kernel)
    guesses = guesses @ _independent(guesses)
    n_guessed = max(guesses.shape[1], n_wanted)
    if n_guessed > guesses.shape[1]:
        filters = UNFILTERED  # some of what takes part from now on never was
    n_random = n_guessed - guesses.shape[1] + N_RANDOM
    block = np.hstack([guesses, rng.normal(size=(len(alive), n_random)) * alive[:, None]])
    start = rng.normal(size=(len(alive), 1)) * alive[:, None]
    del guesses
    high = 0.0
    while True:
        block = block - kernel @ (kernel.T @ block)
        pairs = ritz_pairs(block, product(block))
        filters = _with_end(filters, pairs.values, n_guessed, is_first=not high)
        yield Subspace(pairs, filters)
        if not high:
            high = min(most, _upper_bound(product, start))
            filters = dataclasses.replace(filters, n_passes=filters.n_passes + 1)
        last = float(pairs.values[min(n_wanted, len(pairs.values)) - 1])
        low = min(max(filters.end, 1.01 * last, 1e-12 * high), 0.9 * high)
        block = _filtered(product, pairs, low, high, n_wanted)
        filters = Filters((*filters.bands, (low, high)), filters.n_passes + DEGREE - 1)


def most_passes(entries: float) -> int:
    """Return how many products a polish may take, of so many entries times columns each."""
    return int(min(max(WORK / entries, FEWEST_PASSES), MOST_PASSES))


def _with_end(filters: Filters, values: Floats, n_guessed: int, *, is_first: bool) -> Filters:
    """Return filters after a product by which the Ritz values became known."""
    end = values[min(n_guessed - is_first, len(values) - 1)]  # random columns have no place before they are filtered
    is_known = is_first and filters.bands
    return Filters(filters.bands, filters.n_passes + 1, filters.end if is_known else float(end))


def _outside_kernel(guesses: Floats, kernel: Floats) -> Floats:
    """Return what is left of guesses without their part in the kernel, but for those of which only rounding is."""
    lengths = np.linalg.norm(guesses, axis=0)
    left = guesses - kernel @ (kernel.T @ guesses)
    return np.asarray(left[:, np.linalg.norm(left, axis=0) > math.sqrt(DEPENDENT) * lengths])


def _filtered(product: Product, pairs: RitzPairs, low: float, high: float, n_wanted: int) -> Floats:
    """Return T(S) V, T the Chebyshev polynomial that is at most 1 between ``low`` and ``high`` and grows below."""
    centre, half = (high + low) / 2, (high - low) / 2
    is_single = pairs.vectors.size >= SINGLE_ENTRIES and pairs.residuals[:n_wanted].max() > ROUGH
    dtype = np.float32 if is_single else np.float64
    before, now = (part.astype(dtype) for part in (pairs.vectors, (pairs.images - centre * pairs.vectors) / half))
    for _ in range(DEGREE - 1):
        after = product(now)
        after *= 2 / half
        after -= before
        np.multiply(now, 2 * centre / half, out=before)
        after -= before
        before, now = now, after
    return now.astype(np.float64, copy=False)


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
