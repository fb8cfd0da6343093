"""Every row in memory against every row: by products of sparse rows where these are cheaper, else block by block.

Shape letters: N rows, D features, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distspectral.graph.config import GraphConfig
from distspectral.graph.distances import under_metric
from distspectral.graph.search.exact import exact_solver, query_blocks
from distspectral.graph.search.lists import Neighbors
from distspectral.graph.search.sparse import sparse_neighbors
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import Vectors

EXACT_SPARSE_ROWS = 200_000
"""Thinly filled rows up to which products of sparse rows find neighbours: 16 ns a pair, eleven minutes of one core.
Cells would make their rows dense."""


def searches_products(vectors: Vectors) -> bool:
    """Whether products of sparse rows find the neighbours, whatever the method."""
    return isinstance(vectors, SparseVectors) and vectors.is_thin and vectors.n_rows <= EXACT_SPARSE_ROWS


def all_pairs(vectors: Vectors, config: GraphConfig) -> Neighbors:
    """Return the exact neighbours (N, K) of all rows under the metric, and their squared distances.

    Args:
        vectors: (N, D).
        config: the section ``graph``; its metric is not ``auto``.

    Raises:
        ConstantDataError: all rows are equal.
        SearchFailedError: squared distances are beyond float32.
    """
    if isinstance(vectors, SparseVectors) and searches_products(vectors):
        return sparse_neighbors(vectors, config.n_neighbors, config.metric)
    points = under_metric(vectors, config.metric)
    solver = exact_solver(points, config)
    return joined([solver(points, start, stop) for start, stop in query_blocks(points, config)])


def joined(parts: Sequence[Neighbors]) -> Neighbors:
    """Return the lists of consecutive rows as one."""
    neighbors, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return neighbors, distances
