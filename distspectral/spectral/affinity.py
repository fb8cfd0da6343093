"""Distances to neighbours become affinities in (0, 1], row by row, knowing only the scales of both ends.

Missing neighbours are at distance infinity and get affinity 0. All functions work on torch tensors of any device,
have no gradient and need no communication.

Shape letters: N rows of the dataset, B rows at hand, D features, K neighbours.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

AffinityKind = Literal["self_tuning", "fuzzy", "gaussian", "uniform", "shared_neighbors", "precomputed"]
FORMULAS: dict[AffinityKind, str] = {
    "self_tuning": "exp(-d^2 / (s_i s_j)), s the distance to the scale neighbour",
    "gaussian": "one s, its median over all rows",
    "fuzzy": "UMAP's membership",
    "uniform": "1",
    "shared_neighbors": "the Jaccard index of both ends' neighbourhoods (PhenoGraph's)",
    "precomputed": "as in graph.path, over the largest",
}
"""What each kind is, as the config's reference says it."""

SMALLEST = 2.0**-24
"""Smallest positive float16, the type affinities are stored in: no edge vanishes by underflow."""
BISECTIONS = 40
MIN_WIDTH = 1e-3
"""Smallest width of a fuzzy neighbourhood, as a fraction of its mean distance (UMAP's MIN_K_DIST_SCALE)."""


def needs_scales(kind: AffinityKind) -> bool:
    """Whether an affinity depends on the scales of both ends."""
    return kind in ("self_tuning", "gaussian")


def falls_with_distance(kind: AffinityKind) -> bool:
    """Whether a farther neighbour weighs less; if not, who is a neighbour says everything."""
    return kind not in ("uniform", "shared_neighbors")


def neighbor_scales(squared_distances: Tensor, scale_neighbor: int) -> Tensor:
    """Return the distance of each row to its ``scale_neighbor``-th neighbour.

    Where that neighbour coincides with the row, its smallest positive distance is taken instead, and where there is
    none 0, which :func:`complete_scales` fills in once the median is known.

    Args:
        squared_distances: (B, K) float, ascending; infinity: no neighbour.
        scale_neighbor: 1 to K.

    Returns:
        (B,) scales, same dtype.
    """
    exists = torch.isfinite(squared_distances)
    farthest = squared_distances.where(exists, 0).amax(dim=1)
    scale = squared_distances[:, scale_neighbor - 1].minimum(farthest)
    return torch.where(scale > 0, scale, _smallest_positive(squared_distances)).sqrt()


def median_scale(scales: Tensor) -> Tensor:
    """Return the median () of the positive scales, 1 where there are none.

    Args:
        scales: (n,) from :func:`neighbor_scales`, of all rows or of a sample.
    """
    positive = scales[scales > 0]
    return positive.median() if len(positive) else scales.new_ones(())


def complete_scales(scales: Tensor, kind: AffinityKind, median: Tensor | None = None) -> Tensor:
    """Return scales as the kernel needs them.

    A row all of whose neighbours coincide with it has no scale of its own (0) and takes the median of the others'.

    Args:
        scales: (B,) from :func:`neighbor_scales`.
        kind: ``gaussian`` makes every scale the median, the one global bandwidth.
        median: of :func:`median_scale`; None: of these scales, which are then all there are.

    Returns:
        (B,) positive scales.
    """
    median = median_scale(scales) if median is None else median
    return median.expand_as(scales).clone() if kind == "gaussian" else torch.where(scales > 0, scales, median)


def affinities(
    squared_distances: Tensor,
    kind: AffinityKind,
    anchor_scales: Tensor | None = None,
    neighbor_scales: Tensor | None = None,
    overlap: Tensor | None = None,
) -> Tensor:
    """Return the affinity of each row to its neighbours.

    - ``self_tuning`` and ``gaussian``: exp(-d^2 / (s_i s_j)), with local scales or one for all.
    - ``fuzzy``: exp(-(d - rho_i) / sigma_i), rho_i the nearest positive distance and sigma_i such that the row's
      affinities sum to log2(K); directed.
    - ``uniform``: 1.
    - ``shared_neighbors``: what the neighbourhoods of both ends have in common.
    - ``precomputed``: exp(-d^2), d^2 being minus the logarithm of an affinity that is known.

    Args:
        squared_distances: (B, K) float, ascending; infinity: no neighbour.
        kind: which of the above.
        anchor_scales: (B,) s_i; self_tuning and gaussian only.
        neighbor_scales: (B, K) s_j; self_tuning and gaussian only.
        overlap: (B, K) of :func:`neighborhood_overlap`; shared_neighbors only.

    Returns:
        (B, K) in [2^-24, 1]; 0 exactly where there is no neighbour.

    References: Zelnik-Manor and Perona, Self-tuning spectral clustering, NIPS 2004; McInnes et al., UMAP, 2018;
    Levine et al., Data-driven phenotypic dissection of AML (PhenoGraph), Cell 2015.
    """
    if kind == "uniform":
        weights = torch.ones_like(squared_distances)
    elif kind == "fuzzy":
        weights = _fuzzy(squared_distances)
    elif kind == "shared_neighbors":
        assert overlap is not None, f"{kind} affinities need the neighbours' own neighbours"
        weights = overlap
    elif kind == "precomputed":
        weights = torch.exp(-squared_distances)
    else:
        assert anchor_scales is not None, f"{kind} affinities need scales"
        assert neighbor_scales is not None, f"{kind} affinities need scales of the neighbours too"
        weights = torch.exp(-squared_distances / (anchor_scales[:, None] * neighbor_scales))
    return weights.clamp(SMALLEST, 1).where(torch.isfinite(squared_distances), 0)


def neighborhood_overlap(rows: Tensor, neighbors: Tensor, their_neighbors: Tensor) -> Tensor:
    """Return the Jaccard index of the neighbourhoods of both ends of each edge, every row in its own neighbourhood.

    Args:
        rows: (B,) int64 ids.
        neighbors: (B, K) int64; a missing slot holds the row itself.
        their_neighbors: (B, K, K) int64, the same of each neighbour.

    Returns:
        (B, K) float32 in (0, 1]: a neighbour is in both neighbourhoods, so an edge of the graph never vanishes.
    """
    own = torch.cat([rows[:, None], neighbors], 1)
    theirs = torch.cat([neighbors[:, :, None], their_neighbors], 2)
    counts = torch.cat([torch.ones_like(rows[:, None], dtype=torch.bool), neighbors != rows[:, None]], 1)
    shared = (own[:, None, :, None] == theirs[:, :, None, :]).any(3) & counts[:, None]
    n_shared = shared.sum(2)
    n_theirs = 1 + (their_neighbors != neighbors[:, :, None]).sum(2)
    return n_shared / (counts.sum(1)[:, None] + n_theirs - n_shared)


def _fuzzy(squared_distances: Tensor) -> Tensor:
    """Return UMAP's membership strengths; the width is found by bisection in all rows at once."""
    exists = torch.isfinite(squared_distances)
    distances = squared_distances.sqrt()
    known = distances.where(exists, 0)
    gaps = (distances - _smallest_positive(squared_distances).sqrt()[:, None]).clamp(min=0)
    n_neighbors = squared_distances.shape[1]
    target = math.log2(n_neighbors)
    smallest = MIN_WIDTH * known.sum(dim=1) / exists.sum(dim=1).clamp(min=1)
    smallest = smallest.where(smallest > 0, 1)[:, None]
    if n_neighbors == 1:
        return torch.exp(-gaps / smallest)
    low = torch.zeros_like(smallest)
    # here every term is at least target / K, so the sum has reached the target unless neighbours are missing
    high = gaps.where(exists, 0).amax(dim=1, keepdim=True) / math.log(n_neighbors / target)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        over = torch.exp(-gaps / middle.clamp(min=torch.finfo(gaps.dtype).tiny)).sum(dim=1, keepdim=True) > target
        low, high = low.where(over, middle), middle.where(over, high)
    return torch.exp(-gaps / high.maximum(smallest))


def _smallest_positive(squared_distances: Tensor) -> Tensor:
    """Return (B,) the smallest positive finite entry of each row, 0 where there is none."""
    smallest = squared_distances.where(squared_distances > 0, torch.inf).amin(dim=1)
    return smallest.where(torch.isfinite(smallest), 0)


@torch.no_grad()
def batch_affinity(
    vectors: Tensor, n_neighbors: int, kind: AffinityKind, scale_neighbor: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the kNN graph inside a batch as edges, the SpectralNet paper's scheme.

    Args:
        vectors: (B, D) float, B > n_neighbors.
        n_neighbors: K.
        kind: see :func:`affinities`.
        scale_neighbor: 1 to K; used by self_tuning and gaussian.

    Returns:
        heads: (B K,) int64 positions in the batch, each K times in a row.
        tails: (B K,) int64 positions of their neighbours.
        weights: (B K,) affinities, dtype of ``vectors``.

    Raises:
        ValueError: the batch has too few rows.
    """
    n_rows = len(vectors)
    if n_rows <= n_neighbors:
        raise ValueError(f"a batch of {n_rows} rows has no {n_neighbors} neighbours for each; make batches larger")
    rounded = torch.cdist(vectors - vectors.mean(dim=0), vectors - vectors.mean(dim=0)).fill_diagonal_(torch.inf)
    tails = rounded.topk(n_neighbors, dim=1, largest=False).indices
    # cdist rounds like the matrix product inside it: take the differences, and their order
    squared_distances, order = (vectors[:, None] - vectors[tails]).square().sum(dim=2).sort(dim=1, stable=True)
    tails = tails.gather(1, order)
    if needs_scales(kind):
        scales = complete_scales(neighbor_scales(squared_distances, scale_neighbor), kind)
        weights = affinities(squared_distances, kind, scales, scales[tails])
    elif kind == "shared_neighbors":
        overlap = neighborhood_overlap(torch.arange(n_rows, device=vectors.device), tails, tails[tails])
        weights = affinities(squared_distances, kind, overlap=overlap.to(vectors.dtype))
    else:
        weights = affinities(squared_distances, kind)
    heads = torch.arange(n_rows, device=vectors.device).repeat_interleave(n_neighbors)
    return heads, tails.flatten(), weights.flatten()
