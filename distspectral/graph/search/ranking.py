"""Candidates ranked by true differences where the rows lie, on a GPU or the CPU: what a CPU does one pair at a time.

Shape letters: B rows, D features, Q queries, C candidates, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

RANK_BYTES = 1 << 28
"""Most bytes of differences, in float32 and again in float64, that are held at once."""
NONE = torch.iinfo(torch.int64).max
"""The key of no candidate: above any distance's."""


def ranked(rows: Tensor, candidates: Tensor, own: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
    """Return each query's K nearest candidates in ascending order of (distance, position).

    It is what ``top_k`` of ``squared_distances`` returns, up to rounding: differences and squares are float32, as
    there, but sums are float64 and rounded once, so that they do not depend on the order of summation, which devices
    choose. The two differ in the last digits; where squares are integers below 2^24 in sum, in nothing.

    Args:
        rows: (B, D) float32.
        candidates: (Q, C) int64 positions in ``rows``, none twice in a list; negative: no candidate.
        own: (Q,) int64 positions of the queries themselves, dropped from their lists.
        n_neighbors: K; where a query has fewer candidates the rest is its own position at distance infinity.

    Returns:
        positions: (Q, K) int64.
        squared_distances: (Q, K) float32.
    """
    n_candidates = candidates.shape[1]
    kept = min(n_neighbors, n_candidates)
    positions = own[:, None].repeat(1, n_neighbors)
    squared = rows.new_full(positions.shape, torch.inf)
    step = max(1, RANK_BYTES // (12 * rows.shape[1] * max(n_candidates, 1)))
    for start in range(0, len(candidates), step):
        part, self_at = candidates[start : start + step], own[start : start + step, None]
        found = _squared_distances(rows, part, self_at)
        void = (part < 0) | (part == self_at) | found.isinf()
        keys = (found.view(torch.int32).long() << 32 | part).masked_fill_(void, NONE)
        best = keys.topk(kept, largest=False, sorted=True).values
        is_one = best != NONE
        of_part = slice(start, start + len(part)), slice(kept)
        positions[of_part] = torch.where(is_one, best & 0xFFFFFFFF, self_at)
        squared[of_part] = torch.where(is_one, (best >> 32).int().view(torch.float32), torch.inf)
    return positions, squared


def _squared_distances(rows: Tensor, candidates: Tensor, own: Tensor) -> Tensor:
    """Return (Q, C) squared distances of rows ``own`` (Q, 1) to rows ``candidates`` (Q, C)."""
    differences = rows[candidates.clamp(min=0)]
    differences -= rows[own]
    return differences.square_().sum(-1, dtype=torch.float64).float()
