"""Greedy merging of small clusters into few, by the modularity that each merger gains.

Shape letters: M small clusters, C clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GONE = -1
"""Group of a cluster that was merged into another."""


def merge_by_modularity(
    affinities: NDArray[np.float64], n_clusters: int, groups: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the cluster (M,), from 0 to C - 1, that each small cluster ends in.

    The pair that gains most modularity, 2 (B_ij / t - d_i d_j / t^2), is merged until C are left. B is ``affinities``,
    d its row sums and t its sum. A gain is the affinity between two clusters beyond what chance gives clusters of their
    degrees. The largest gain of each row is kept. A merger may lower it; then it is a bound, and the row is looked
    through again only when no other one has more. That takes about O(M^2) in place of O(M^3).

    Args:
        affinities: (M, M) symmetric, at least 0; its diagonal holds twice the affinity inside a cluster. Every row has
            a sum above 0.
        n_clusters: C, at least the number of groups, at most M.
        groups: (M,) at least 0; clusters of different groups are never merged.

    Reference: Clauset, Newman, Moore, Finding community structure in very large networks, 2004.
    """
    between = affinities / affinities.sum()
    degrees = between.sum(1)
    assert degrees.all(), "a cluster without an edge gains nothing from any merger"
    assert len(np.unique(groups)) <= n_clusters <= len(groups), (groups, n_clusters)
    groups, merged = groups.copy(), np.arange(len(between))

    def gains(one: int) -> NDArray[np.float64]:
        """Return half the modularity (M,) that each merger with a cluster gains, -inf where there is none."""
        found: NDArray[np.float64] = between[one] - degrees[one] * degrees
        found[groups != groups[one]] = -np.inf
        found[one] = -np.inf
        return found

    best, partners = np.full(len(merged), np.inf), np.full(len(merged), GONE)
    for _ in range(len(merged) - n_clusters):
        while partners[kept := int(best.argmax())] == GONE:
            found = gains(kept)
            partners[kept] = found.argmax()
            best[kept] = found[partners[kept]]
        gone = int(partners[kept])
        merged[merged == gone] = kept
        between[kept] += between[gone]
        between[kept, kept] += between[kept, gone]
        between[:, kept] = between[kept]
        degrees[kept] += degrees[gone]
        groups[gone], best[gone] = GONE, -np.inf
        partners[(partners == kept) | (partners == gone)] = GONE
        gained = gains(kept)
        nearer = gained >= best
        best[nearer], partners[nearer] = gained[nearer], kept
        partners[kept] = gained.argmax()
        best[kept] = gained[partners[kept]]
    return np.unique(merged, return_inverse=True)[1].reshape(-1)
