"""Rows and edges among the leaves of a tree: who lies where, what leads from leaf to leaf, how good a cut of it is.

Shape letters: N rows, B rows of a block, n sampled rows, S features that the network sees, P components, C clusters,
M leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from distspectral.clustering.micro_clusters import leaf_centroids, number_of_leaves
from distspectral.graph.store import Graph
from distspectral.models.assigner import Assigner
from distspectral.models.outliers import Outliers
from distspectral.spectral.tree import Tree, cluster_facts

BLOCK_EDGES = 1 << 20
"""Edges that are added up at a time."""


def with_leaves(
    assigner: Assigner, embedding: Tensor, n_rows: int, wished: int | Literal["auto"], seed: int
) -> Assigner:
    """Return the assigner with leaves inside its clusters, fitted to sampled rows.

    Args:
        assigner: of the clusters.
        embedding: (n, P) of the sampled rows.
        n_rows: N, which decides how many leaves ``auto`` are.
        wished: leaves, or ``auto``.
        seed: of the leaves.
    """
    points, labels = assigner.coordinates(embedding), assigner(embedding)[0]
    n_leaves = number_of_leaves(n_rows, len(assigner.centroids), wished)
    found, owners = leaf_centroids(points.numpy(), labels.numpy(), assigner.centroids.numpy(), n_leaves, seed)
    leaves = {"leaves": torch.from_numpy(found), "owners": torch.from_numpy(owners)}
    return Assigner.from_state(assigner.state() | leaves)


class Placed(NamedTuple):
    """What is known of rows by their leaves.

    Attributes:
        leaves: (n,) int32.
        distances: (n,) from the leaf's centroid.
        are_outliers: (n,).
        silhouettes: (M,) summed by leaf.
        outliers: (M,) counted by leaf.
    """

    leaves: NDArray[np.int32]
    distances: NDArray[np.float32]
    are_outliers: NDArray[np.bool_]
    silhouettes: NDArray[np.float64]
    outliers: NDArray[np.float64]


def placed(assigner: Assigner, outliers: Outliers, embedding: Tensor, seen: Tensor) -> Placed:
    """Return the leaves of embedded rows (n, P), their simplified silhouettes, and which are outliers.

    A silhouette is 1 - distance to the own centroid over that to the next: 0 half-way between two clusters, and 1 at a
    centroid or where there is no other.
    Reference: Hruschka, de Castro, Campello, Evolutionary algorithms for clustering gene-expression data, ICDM 2004.

    Args:
        assigner: with leaves.
        outliers: fitted with it.
        embedding: (n, P).
        seen: (n, S) the rows as the network sees them.
    """
    cluster, _ = assigner(embedding)
    leaf = assigner.leaf(embedding, cluster)
    leaves = leaf.numpy()
    distances = assigner.leaf_distances(embedding, leaf)
    strange = outliers(seen, cluster, distances).numpy()
    silhouette = torch.ones(len(embedding))
    if len(assigner.centroids) > 1:
        near = assigner.squared_distances(embedding).topk(2, dim=1, largest=False).values.sqrt()
        silhouette = 1 - near[:, 0] / near[:, 1].clamp(min=torch.finfo(near.dtype).tiny)
    weights, n_leaves = (silhouette.double().numpy(), strange.astype(np.float64)), len(assigner.leaves)
    sums = (np.bincount(leaves, one, n_leaves).astype(np.float64) for one in weights)
    return Placed(leaves.astype(np.int32), distances.numpy(), strange, *sums)


def together(parts: Sequence[Placed]) -> Placed:
    """Return consecutive rows as one."""
    *rows, silhouettes, outliers = zip(*parts, strict=True)
    sums = (np.sum(one, axis=0) for one in (silhouettes, outliers))
    return Placed(*(np.concatenate(one) for one in rows), *sums)


def leaf_affinities(
    graph: Graph, leaves: NDArray[np.integer[Any]], n_leaves: int, start: int, stop: int
) -> sparse.csr_array:
    """Return the affinity (M, M) from leaf to leaf, added up over the edges of rows [start, stop).

    Args:
        graph: of all N rows.
        leaves: (N,) of every row.
        n_leaves: M.
        start: first row.
        stop: behind the last row.
    """
    found = nothing_between(n_leaves)
    step = max(1, BLOCK_EDGES // graph.n_neighbors)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        neighbors, affinities = graph.block(first, last)
        heads = np.repeat(leaves[first:last], neighbors.shape[1])
        ends = (heads, leaves[neighbors.ravel()])
        found += sparse.coo_array((affinities.ravel().astype(float), ends), (n_leaves, n_leaves)).tocsr()
    return found


def symmetric(directed: sparse.csr_array) -> sparse.csr_array:
    """Return affinities (M, M) counted from both ends, so that the diagonal holds twice what is inside a leaf."""
    return (directed + directed.T).tocsr()


def quality(
    tree: Tree,
    affinities: sparse.csr_array,
    stability: NDArray[np.float64],
    silhouettes: NDArray[np.float64],
    outliers: NDArray[np.float64],
) -> dict[str, list[Any]]:
    """Return how good each of the run's clusters is without labels, lists of C by what is told.

    Args:
        tree: of M leaves.
        affinities: (M, M) of :func:`symmetric`.
        stability: (2M - 1,) of each node, nan where it is not known.
        silhouettes: (M,) summed.
        outliers: (M,) rows that are some.
    """
    labels, n_clusters = tree.clusters, tree.n_clusters
    facts = cluster_facts(affinities, tree.rows[: tree.n_leaves], labels)
    for name, sums in (("silhouette", silhouettes), ("outliers", outliers)):
        facts[name] = np.bincount(labels, sums, n_clusters) / np.maximum(facts["rows"], 1)
    found = stability[tree.nodes(n_clusters)].tolist()
    return {name: column.tolist() for name, column in facts.items()} | {
        "stability": [None if math.isnan(value) else value for value in found]
    }


def nothing_between(n_leaves: int) -> sparse.csr_array:
    """Return the affinity (M, M) of no edge."""
    return sparse.csr_array((n_leaves, n_leaves))
