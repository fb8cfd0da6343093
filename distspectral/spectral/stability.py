"""Whether a cluster is found again in trees that were grown from other rows: the best match of each node.

Shape letters: n rows, M and T leaves of two trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def summed_up(children: NDArray[np.int64], leaves: NDArray[Any]) -> NDArray[Any]:
    """Return sums over each node (2M - 1, ...) of what its leaves have (M, ...).

    Args:
        children: (M - 1, 2) of each merger, in the order of mergers.
        leaves: numbers by leaf.
    """
    n_leaves = len(leaves)
    found = np.empty((2 * n_leaves - 1, *leaves.shape[1:]), leaves.dtype)
    found[:n_leaves] = leaves
    for node, (left, right) in enumerate(children, n_leaves):
        found[node] = found[left] + found[right]
    return found


def best_matches(
    children: NDArray[np.int64],
    leaves: NDArray[np.integer[Any]],
    other_children: NDArray[np.int64],
    other_leaves: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """Return the Jaccard index (2M - 1,) of each node of a tree with the node of another that is most like it.

    It is the number of rows that are in both over the number that are in either; nan of nodes without rows.

    Args:
        children: (M - 1, 2) of the tree.
        leaves: (n,) leaf of each row in it.
        other_children: (T - 1, 2) of the other tree.
        other_leaves: (n,) likewise.

    Reference: Hennig, Cluster-wise assessment of cluster stability, 2007.
    """
    n_leaves, n_others = len(children) + 1, len(other_children) + 1
    pairs = np.bincount(leaves.astype(np.int64) * n_others + other_leaves, minlength=n_leaves * n_others)
    by_leaf = summed_up(other_children, pairs.reshape(n_leaves, n_others).astype(np.float32).T).T
    sizes = summed_up(other_children, np.bincount(other_leaves, minlength=n_others).astype(np.float32))
    own = summed_up(children, np.bincount(leaves, minlength=n_leaves).astype(np.float32))
    both = summed_up(children, np.ascontiguousarray(by_leaf))
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (both / (own[:, None] + sizes - both)).max(1).astype(np.float64)
    return found
