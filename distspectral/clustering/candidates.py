"""Numbers of clusters that a sample of the embedding and its edges speak for, ranked: what ``n_clusters: auto`` takes.

Shape letters: n sampled rows, P components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.diffusion import diffusion_scale
from distspectral.clustering.k_means import nearest_centroids
from distspectral.clustering.micro_clusters import ROWS_PER_MICRO_CLUSTER, leaf_centroids
from distspectral.clustering.sampled_edges import CUT_ROWS, Embed, sampled_edges, some_of
from distspectral.graph.store import GatheredEdges
from distspectral.models.assigner import clustering_coordinates
from distspectral.spectral.candidates import Candidate, ranked

TRIED, FEWEST_TRIED, TRIALS = 400, 40, 3
"""Micro-clusters that tell how many clusters there are, at most and at least, and how often they are fitted."""
SHOWN_CANDIDATES = 3


def candidates(
    embed: Embed,
    graph: GatheredEdges,
    ritz_values: NDArray[np.float64],
    config: ClusterConfig,
    seed: int,
    rows: NDArray[np.int64],
) -> list[Candidate]:
    """Return numbers of clusters, ranked; none where the rows (n,), or different ones, are too few.

    Args:
        embed: the embedding of rows.
        graph: of all rows.
        ritz_values: (P,) ascending.
        config: coordinates.
        seed: of the rows whose edges judge, and of the micro-clusters.
        rows: (n,) sampled, ascending.
    """
    anchors = some_of(rows, CUT_ROWS, np.random.default_rng([seed, TRIALS]))
    edges, embedding = sampled_edges(embed, graph, rows, anchors)
    scale = torch.from_numpy(diffusion_scale(ritz_values, config.diffusion_time, len(ritz_values)))
    points, own = (
        clustering_coordinates(part, scale, config.normalize_rows is not False) for part in (edges.embedding, embedding)
    )
    labels, mean = np.zeros(len(rows), np.int64), own.numpy().mean(0, keepdims=True)
    n_tried = min(TRIED, len(rows) // ROWS_PER_MICRO_CLUSTER)
    fits = [leaf_centroids(own.numpy(), labels, mean, n_tried, seed + trial)[0] for trial in range(TRIALS)]
    if min(map(len, fits)) < FEWEST_TRIED:  # few rows differ
        return []
    members = [nearest_centroids(own.numpy(), fit) for fit in fits]
    return ranked([edges.between(points, fit) for fit in fits], members, ritz_values)


def candidates_in_words(found: list[dict[str, Any]]) -> str:
    """Return the numbers of clusters, and the score and stability of each."""
    return ", ".join(f"{one['n_clusters']} ({one['score']:.2f}, {one['stability']:.2f})" for one in found)
