"""Candidates for nearest rows by products on the CPU: bfloat16 where that is fast, a threshold in place of heaps.

With |b|^2 and |q|^2 as more columns a product is a squared distance,

    (-2 q, 1, 1, h_q, l_q) . (b, h_b, l_b, 1, 1)    with h + l the squared length,

and bits of floats that are not negative order as integers, which are compared at the width of the float. A row's
smallest distances are among those that do not exceed the k-th smallest of its groups' minima; comparing costs a
fraction of keeping a heap. What rounding may have hidden is known: rounded rows are as far apart as the rows, give or
take the lengths of what was rounded off, so that a row's neighbours can be proven complete once true differences have
ranked its candidates.

On one core (AMX, 3,000 rows) a pair takes 1.6 ns at 96 features and 3.7 at 784, in float32 3.0 and 13.

Shape letters: B rows of the base, P with padding, Q queries, D features, W columns, M candidates of all queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.precision import fast_bfloat16

GROUPS = 128
"""Least minima of a row; several times the candidates wanted."""
BLOCK_VALUES = 1 << 21
"""Distances at once: they stay in a core's cache."""
LEAST_BLOCK, MOST_BLOCK = 256, 512
"""Queries at once."""
PART_ROWS = 4096
"""Queries whose candidates are handed on at once."""
ENCODED_ROWS = 256
"""Rows that are centred and rounded at once."""
CENTRE_ROWS = 256
"""Rows whose mean is the centre: any point amid the rows will do."""
ALIGNED = 32
"""Matrix units take so many columns of bfloat16 at once."""
LEAST_DIM = 24
"""With fewer features products are a small part of the work, and neighbours are near beside what is rounded off."""
FAR = 2.0**126
"""The squared length of padding."""


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Base rows that may be among the nearest of queries.

    Attributes:
        counts: (Q,) candidates of each query.
        positions: (M,) in the base, query by query.
        limits: (Q,) squared distances of rounded rows: whoever is no candidate is farther.
        lengths: (Q,) of the queries, centred.
        rounded: (Q,) lengths of what was rounded off the queries.
        base_rounded: most that was rounded off a row of the base.
        dim: D.
        bfloat16: whether rows were rounded.
    """

    counts: NDArray[np.int64]
    positions: NDArray[np.int64]
    limits: NDArray[np.float32]
    lengths: NDArray[np.float32]
    rounded: NDArray[np.float32]
    base_rounded: float
    dim: int
    bfloat16: bool

    def are_complete(self, worst: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return whether no row of the base that is no candidate is as near as ``worst`` (Q,), squared distances.

        Such a row's length is at most the query's and the distance. Sums of D products have an error of about sqrt(D)
        units in the last place of the squared sum of both lengths.
        """
        distance = np.sqrt(worst)
        reach = self.lengths + distance
        unit = (8 + np.sqrt(self.dim)) * np.finfo(np.float32).eps + (2.0**-16 if self.bfloat16 else 0)
        with np.errstate(over="ignore", invalid="ignore"):
            proven = np.sqrt(np.maximum(self.limits - unit * np.square(self.lengths + reach), 0))
            hidden = self.rounded + np.minimum(self.base_rounded, 2.0**-8 * reach)
            complete: NDArray[np.bool_] = (proven - hidden > distance) | (self.limits >= FAR / 2)
        return complete

    @property
    def queries(self) -> NDArray[np.int64]:
        """The query (M,) of each candidate."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def filled(self, values: NDArray[Any], missing: float) -> NDArray[Any]:
        """Return values (M,) of candidates as (Q, most candidates of a query), ``missing`` where there are fewer."""
        table = np.full((len(self.counts), int(self.counts.max(initial=1))), missing, values.dtype)
        table[np.arange(table.shape[1]) < self.counts[:, None]] = values
        return table


def rounds(dim: int) -> bool:
    """Whether products of rows with so many features are faster in bfloat16 here."""
    return dim >= LEAST_DIM and fast_bfloat16(torch.device("cpu"))


class Base:
    """Rows that are searched, as a factor of products.

    Args:
        rows: (B, D).
        n_nearest: how many nearest rows of a query are to be candidates.
        bfloat16: whether rows are rounded; by default where that is faster.

    Attributes:
        bfloat16: whether they are.
    """

    def __init__(self, rows: NDArray[np.float32], n_nearest: int, bfloat16: bool | None = None) -> None:
        self.bfloat16 = rounds(rows.shape[1]) if bfloat16 is None else bfloat16
        self._n_rows, self._dim = rows.shape
        self._n_nearest = n_nearest
        self._groups = max(GROUPS, 1 << (4 * n_nearest - 1).bit_length())
        self._centre = rows[:: max(1, len(rows) // CENTRE_ROWS)].mean(axis=0)
        self._factor, self._lengths, self._rounded = self._encoded(rows, -(-len(rows) // self._groups) * self._groups)
        self._factor[len(rows) :, self._dim] = FAR

    def nearest(self, queries: NDArray[np.float32]) -> Iterator[tuple[slice, Candidates]]:
        """Yield parts of queries (Q, D) and candidates for the nearest rows of the base to each."""
        return self._candidates(*self._encoded(queries, len(queries)), are_base=False)

    def nearest_others(self) -> Iterator[tuple[slice, Candidates]]:
        """Yield parts of the base and candidates for the nearest other rows to each."""
        return self._candidates(self._factor[: self._n_rows], self._lengths, self._rounded, are_base=True)

    def _encoded(
        self, rows: NDArray[np.float32], n_padded: int
    ) -> tuple[Tensor, NDArray[np.float32], NDArray[np.float32]]:
        """Return rows as a factor (P, W), their lengths (B,) and those of what was rounded off (B,)."""
        dtype, width = torch.float32, self._dim + 4
        if self.bfloat16:
            dtype, width = torch.bfloat16, -(-width // ALIGNED) * ALIGNED
        n_rows, dim = rows.shape
        factor = torch.zeros((n_padded, width), dtype=dtype)
        squares, rounded = torch.empty(n_rows), torch.zeros(n_rows)
        for start in range(0, n_rows, ENCODED_ROWS):
            part = slice(start, min(start + ENCODED_ROWS, n_rows))
            centred = torch.from_numpy(rows[part] - self._centre)
            factor[part, :dim] = kept = centred.to(dtype)
            if self.bfloat16:
                back = kept.float()
                rounded[part] = torch.linalg.vector_norm(centred.sub_(back), dim=1)
                centred = back
            squares[part] = centred.square_().sum(1)
        high = squares.to(dtype)
        factor[:n_rows, dim], factor[:n_rows, dim + 1] = high, squares - high
        factor[:, dim + 2 : dim + 4] = 1
        return factor, squares.sqrt_().numpy(), rounded.numpy()

    def _fill_queries(self, rows: Tensor, queries: Tensor) -> None:
        """Write the other factor (Q, W) of rows as encoded."""
        dim = self._dim
        torch.mul(rows, -2, out=queries)
        queries[:, dim : dim + 2] = 1
        queries[:, dim + 2 : dim + 4] = rows[:, dim : dim + 2]

    def _candidates(
        self, queries: Tensor, lengths: NDArray[np.float32], rounded: NDArray[np.float32], *, are_base: bool
    ) -> Iterator[tuple[slice, Candidates]]:
        """Yield parts of encoded queries and their candidates."""
        work = _Work.of(self._factor, self._n_rows)
        step, most_rounded = len(work.below), float(self._rounded.max(initial=0))
        per_part = max(step, PART_ROWS // step * step)
        for first in range(0, len(queries), per_part):
            part = slice(first, min(first + per_part, len(queries)))
            blocks = [
                self._block(queries[start : min(start + step, part.stop)], work, start if are_base else None)
                for start in range(first, part.stop, step)
            ]
            counts, positions, limits = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
            as_float = torch.from_numpy(limits).view(queries.dtype).float().numpy()
            known = lengths[part], rounded[part], most_rounded, self._dim, self.bfloat16
            yield part, Candidates(counts, positions, as_float, *known)

    def _block(
        self, rows: Tensor, work: _Work, first: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.signedinteger[Any]]]:
        """Return counts and positions of candidates, and the limits' ordinals, for queries that are met at once."""
        n_queries = len(rows)
        self._fill_queries(rows, work.queries[:n_queries])
        torch.mm(work.queries, self._factor.T, out=work.products)
        distances = work.ordinals[:n_queries]
        if first is not None:
            distances[np.arange(n_queries), np.arange(first, first + n_queries)] = np.iinfo(distances.dtype).max
        minima = np.minimum.reduce(distances.reshape(n_queries, -1, self._groups), axis=1)
        minima.partition(self._n_nearest - 1, axis=1)
        limits = np.clip(minima[:, self._n_nearest - 1], 0, work.far - 1)  # what is below zero is zero, rounded
        near = np.less_equal(distances[:, : self._n_rows], limits[:, None], out=work.below[:n_queries])
        below = np.flatnonzero(near)
        rows_at = np.arange(n_queries + 1) * self._n_rows
        counts = np.diff(np.searchsorted(below, rows_at))
        below -= np.repeat(rows_at[:-1], counts)
        return counts, below, limits


@dataclasses.dataclass(frozen=True)
class _Work:
    """Memory of a block, the same for all of a base: products of a new shape take a millisecond more.

    Attributes:
        queries: (Q, W).
        products: (Q, P).
        ordinals: these as integers.
        below: (Q, B).
        far: the ordinal of ``FAR``.
    """

    queries: Tensor
    products: Tensor
    ordinals: NDArray[np.signedinteger[Any]]
    below: NDArray[np.bool_]
    far: int

    @classmethod
    def of(cls, factor: Tensor, n_rows: int) -> Self:
        n_padded, width = factor.shape
        step = _step(n_padded)
        products, far = factor.new_empty((step, n_padded)), _ordinals(factor.new_tensor([FAR]))
        return cls(
            factor.new_zeros((step, width)), products, _ordinals(products), np.empty((step, n_rows), bool), int(far[0])
        )


def _step(n_padded: int) -> int:
    """Return how many queries meet so many rows at once, such that the rows themselves are met with little waste."""
    most = int(np.clip(BLOCK_VALUES // n_padded, LEAST_BLOCK, MOST_BLOCK))
    blocks = -(-n_padded // most)
    return -(-n_padded // (ALIGNED * blocks)) * ALIGNED


def _ordinals(floats: Tensor) -> NDArray[np.signedinteger[Any]]:
    """Return the bits of floats as integers of their width: those that are not negative are in the floats' order."""
    integers: NDArray[np.signedinteger[Any]] = floats.view({2: torch.int16, 4: torch.int32}[floats.itemsize]).numpy()
    return integers
