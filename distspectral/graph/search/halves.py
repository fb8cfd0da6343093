"""A cell on a GPU: half precision proposes neighbours, float32 ranks them, a sample says whether halves sufficed.

Tensor cores multiply halves several times as fast as float32. But asked for distances of halves, FAISS squares every
value in half precision as well (``l2NormRowMajor`` in its ``L2Norm.cu``): from 256 on a square is infinite, and below
it keeps 11 bits, too few where neighbours are near beside the norms. So it is asked for the largest products

    (q, 1, 1) . (b, -h, -l)    with h + l = |b|^2 / 2,

which it sums in float32 and which order rows as their distances to q do. All that halves cost then is the rounding of
the values themselves. Everything but these products is torch on the device where the rows are.

Shape letters: B rows of the cell, D features, Q queries, C candidates, K neighbours, W columns of halves.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.graph.search.exact import MARGIN, MAX_CANDIDATES
from distspectral.graph.search.faiss_search import GpuSearch
from distspectral.graph.search.ranking import ranked

logger = logging.getLogger(__name__)

HALF_NORM = 256.0
"""Largest norm of rows cast to float16: half its square, 32,768, is below float16's end of 65,504. Values keep all of
their 11 bits down to 2e-7 of the largest norm, half squares theirs of 22 down to 1e-3 and some down to 1e-6."""
HALF_TARGET = 0.999
"""Share of the sample's neighbours that halves must find; else the cell is searched in float32."""
ALIGNED = 8
"""Tensor cores take rows of a multiple of so many halves."""


class CellOnGpu:
    """A cell's rows on the device, and as halves in memory: what can be done before FAISS's turn on the device comes.

    Args:
        rows: (B, D); not kept.
        n_neighbors: K; a row of a smaller cell has itself at infinity for those that are missing.
        sample: (Q,) positions of the rows that check; where they are all rows nothing else is searched.
    """

    def __init__(self, rows: NDArray[np.float32], n_neighbors: int, sample: NDArray[np.int64]) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._rows, self._sample = torch.from_numpy(rows).to(device), torch.from_numpy(sample).to(device)
        self._centred = self._rows - _centre(self._rows)
        self._n_neighbors, self._width = n_neighbors, min(n_neighbors + 1 + MARGIN, len(rows), MAX_CANDIDATES)
        proposed = _nearest_by_products(self._centred, self._sample, self._width)
        self._proven = ranked(self._rows, proposed, self._sample, n_neighbors)
        self._is_proven = len(sample) == len(rows)
        if not self._is_proven:
            self._queries, self._base = (side.cpu().numpy() for side in halves(self._centred))

    def nearest(self, search: GpuSearch) -> tuple[NDArray[np.int64], NDArray[np.float32], int, int]:
        """Return positions (B, K) and squared distances (B, K) of each row's nearest, hits and tries of the check.

        The sample's own neighbours come from float32 products of torch, so the check also sees a FAISS that finds
        nothing.

        Raises:
            SearchFailedError: halves found too little, and float32 finds nothing.
        """
        if self._is_proven:
            return *_to_numpy(*self._proven), 0, 0
        tries = int(self._proven[1].isfinite().sum())
        wider = min(2 * self._width, len(self._rows), MAX_CANDIDATES)
        positions, squared, hits = self._ranked(search.largest_products(self._queries, self._base, wider))
        is_short = len(self._rows) > self._n_neighbors and bool(squared[:, -1].isinf().any())
        if is_short or hits < HALF_TARGET * tries:
            logger.warning(
                "cell of %d rows: recall %.4f of halves: searching float32", len(self._rows), hits / max(tries, 1)
            )
            single = self._centred.cpu().numpy()
            positions, squared, hits = self._ranked(search(single, single, self._width)[1])
        return *_to_numpy(positions, squared), hits, tries

    def _ranked(self, candidates: NDArray[np.int64]) -> tuple[Tensor, Tensor, int]:
        """Return positions (B, K), squared distances (B, K) and the hits of the sample."""
        device = self._rows.device
        everyone = torch.arange(len(self._rows), device=device)
        found = ranked(self._rows, torch.from_numpy(candidates).to(device), everyone, self._n_neighbors)
        checked = found[1][self._sample]
        return *found, int(((checked <= self._proven[1][:, -1:]) & checked.isfinite()).sum())


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries (B, W) and base (B, W), float16, whose products order rows as distances do.

    Args:
        rows: (B, D) float32, centred: what is far from zero is rounded most.
    """
    n_rows, dim = rows.shape
    unit = rows / rows.abs().max().clamp(min=torch.finfo(torch.float32).tiny)  # squares neither overflow nor vanish
    scale = HALF_NORM / torch.linalg.vector_norm(unit, dim=1).max().clamp(min=1)  # the largest is at least 1, or all 0
    queries = rows.new_zeros((n_rows, -(-(dim + 2) // ALIGNED) * ALIGNED), dtype=torch.float16)
    queries[:, :dim] = unit * scale
    base = queries.clone()
    half_squares = queries[:, :dim].float().square_().sum(1) / 2
    high = half_squares.half()
    base[:, dim], base[:, dim + 1] = -high, -(half_squares - high.float()).half()
    queries[:, dim : dim + 2] = 1
    return queries, base


def _centre(rows: Tensor) -> Tensor:
    """Return the mean (D,) of the half of the rows that is nearest to the mean: a few far ones hardly move it."""
    apart = torch.linalg.vector_norm(rows - rows.mean(0), dim=1)
    return rows[apart <= apart.median()].mean(0)


def _nearest_by_products(rows: Tensor, queries: Tensor, width: int) -> Tensor:
    """Return candidates (Q, C) for the nearest of centred rows to those at ``queries``, by float32 products."""
    scores = torch.addmm(rows.square().sum(1), rows[queries], rows.T, alpha=-2)
    return scores.topk(width, largest=False, sorted=False).indices


def _to_numpy(positions: Tensor, squared: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return positions.cpu().numpy(), squared.cpu().numpy()
