"""A graph in memory that was made elsewhere, as neighbour lists, and what an estimator then learns by.

Shape letters: N rows, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from distspectral.errors import ConfigError
from distspectral.graph.config import MAX_NEIGHBORS
from distspectral.graph.given import GivenGraph, checked
from distspectral.graph.search.lists import Neighbors
from distspectral.recipes import SpectralRecipe


def given_lists(graph: Any, n_rows: int, affinity: Any) -> Neighbors | None:
    """Return the neighbours (N, K) and squared distances (N, K) of a matrix, None of None.

    Args:
        graph: (N, N) SciPy sparse matrix or array; entries that it lacks, and its diagonal, are no edges.
        n_rows: N.
        affinity: ``precomputed`` where the matrix holds affinities, else distances.

    Raises:
        ConfigError: it is no such matrix.
        SourceError: an entry is negative or NaN, or a row has none.
    """
    if graph is None:
        return None
    try:
        matrix = sparse.csr_array(graph)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"graph: expected a SciPy sparse matrix (got {type(graph).__name__})") from error
    if matrix.shape != (n_rows, n_rows):
        raise ConfigError(f"graph: has the shape {matrix.shape}, but X has {n_rows} rows; give a row and a column each")
    entries = matrix.tocoo()
    off = entries.row != entries.col
    rows, columns, values = entries.row[off], entries.col[off], entries.data[off].astype(np.float64)
    counts = np.bincount(rows, minlength=n_rows)
    width = int(counts.max(initial=0))
    if not 1 <= width <= MAX_NEIGHBORS:
        raise ConfigError(
            f"graph: has rows of up to {width:,} entries, expected 1 to {MAX_NEIGHBORS:,}; keep the nearest of each row"
        )
    there = np.arange(width) < counts[:, None]
    order = np.argsort(rows, kind="stable")
    ids, found = np.full(there.shape, -1, np.int64), np.full(there.shape, np.inf)
    ids[there], found[there] = columns[order], values[order]
    is_affinity = affinity == "precomputed"
    largest = float(values.max(initial=0.0, where=np.isfinite(values))) or 1.0
    made = GivenGraph("graph", n_rows, width, "affinities" if is_affinity else "distances", False, largest)
    return checked(0, ids, found, made)


def on_given(recipe: SpectralRecipe, lists: Neighbors | None) -> SpectralRecipe:
    """Return the recipe of a run on these lists; the same one without any."""
    if lists is None:
        return recipe
    k = lists[0].shape[1]
    affinity = recipe.affinity.model_copy(update={"scale_neighbor": min(recipe.affinity.scale_neighbor, k)})
    graph = recipe.graph.model_copy(update={"n_neighbors": k})
    return recipe.model_copy(update={"graph_given": True, "affinity": affinity, "graph": graph})
