"""From vectors to a weighted graph: what the stage does shard by shard, and the estimator in memory.

Shape letters: N rows, B rows of a block, K neighbours.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.errors import ConstantDataError, TooFewRowsError
from distspectral.graph.components import component_facts
from distspectral.graph.config import AffinityConfig, GraphConfig, check
from distspectral.graph.degrees import degree_facts
from distspectral.graph.distances import under_metric
from distspectral.graph.links import Links, find_links, link_facts
from distspectral.graph.search.duplicates import surplus_duplicates
from distspectral.graph.search.solvers import ExactSolver, rows_per_task
from distspectral.graph.search.through_cells import search_cells
from distspectral.graph.store import ArrayGraph, Graph, read_neighbors
from distspectral.spectral import affinity
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

COMPARED_BYTES = 1 << 26
"""Pairs of neighbours compared at a time, a byte each, where shared neighbours are counted."""


def refuse_too_few(vectors: Vectors, config: GraphConfig) -> None:
    """Refuse data with fewer than ``n_neighbors + 1`` rows.

    Raises:
        TooFewRowsError: just that.
    """
    if vectors.n_rows < config.n_neighbors + 1:
        raise TooFewRowsError(
            f"the data has {vectors.n_rows} rows, but a graph of {config.n_neighbors} neighbours a row needs at least "
            f"{config.n_neighbors + 1}; lower graph.n_neighbors or bring more rows"
        )


def exact_solver(vectors: Vectors, config: GraphConfig) -> ExactSolver:
    """Return the solver for these vectors, after one streaming pass that finds their duplicates.

    Raises:
        TooFewRowsError: there are fewer than ``n_neighbors + 1`` rows.
        ConstantDataError: all rows are equal.
    """
    refuse_too_few(vectors, config)
    surplus, n_distinct = surplus_duplicates(vectors, config.n_neighbors + 1)
    if n_distinct == 1:
        raise ConstantDataError(
            f"all {vectors.n_rows} rows are equal, so no neighbourhood carries information; "
            "check that the vector column is the right one"
        )
    return ExactSolver(config.n_neighbors, vectors.mean.astype(np.float32), surplus, config.device)


def query_blocks(vectors: Vectors, config: GraphConfig) -> list[tuple[int, int]]:
    """Return (start, stop) of the query rows of each task."""
    rows = config.block_rows or rows_per_task(vectors.n_rows, vectors.dim)
    return [(start, min(start + rows, vectors.n_rows)) for start in range(0, vectors.n_rows, rows)]


def needs_scales(config: AffinityConfig) -> bool:
    """Whether the affinities depend on the scales of both ends."""
    return config.kind in ("self_tuning", "gaussian")


def row_scales(squared_distances: NDArray[np.float32], config: AffinityConfig) -> NDArray[np.float32]:
    """Return (B,) scales of a block's rows, 0 where undefined; :func:`all_scales` completes them."""
    scales: NDArray[np.float32] = affinity.neighbor_scales(_tensor(squared_distances), config.scale_neighbor).numpy()
    return scales


def all_scales(scales: NDArray[np.float32], config: AffinityConfig) -> NDArray[np.float32]:
    """Return (N,) positive scales of all rows from those of :func:`row_scales`."""
    completed: NDArray[np.float32] = affinity.complete_scales(_tensor(scales), config.kind).numpy()
    return completed


def block_affinities(
    start: int,
    neighbors: NDArray[np.int64],
    squared_distances: NDArray[np.float32],
    scales: NDArray[np.float32] | None,
    config: AffinityConfig,
    graph: Graph | None = None,
) -> NDArray[np.float16]:
    """Return (B, K) affinities as they are stored.

    Args:
        start: first row of the block.
        neighbors: (B, K).
        squared_distances: (B, K), infinity where a neighbour is missing.
        scales: (N,) of all rows; None for kinds that need none.
        config: the section ``affinity``.
        graph: the neighbours of all rows; shared_neighbors only.
    """
    if config.kind == "shared_neighbors":
        assert graph is not None, "shared neighbours are looked up in the graph"
        overlap = _overlap(start, neighbors, graph)
        weights = affinity.affinities(_tensor(squared_distances), config.kind, overlap=overlap)
    elif scales is None:
        weights = affinity.affinities(_tensor(squared_distances), config.kind)
    else:
        weights = affinity.affinities(
            _tensor(squared_distances),
            config.kind,
            _tensor(scales[start : start + len(neighbors)]),
            _tensor(scales[neighbors]),
        )
    stored: NDArray[np.float16] = weights.to(torch.float16).numpy()
    return stored


def _overlap(start: int, neighbors: NDArray[np.int64], graph: Graph) -> torch.Tensor:
    """Return :func:`~distspectral.spectral.affinity.neighborhood_overlap` of a block (B, K), some rows at a time."""
    k = neighbors.shape[1]
    parts = []
    for part in np.array_split(np.arange(len(neighbors)), 1 + len(neighbors) * (k + 1) ** 3 // COMPARED_BYTES):
        theirs = graph.gather(neighbors[part].reshape(-1))[0].reshape(len(part), k, -1)
        parts.append(affinity.neighborhood_overlap(*map(torch.from_numpy, (start + part, neighbors[part], theirs))))
    return torch.cat(parts)


def graph_facts(graph: Graph, of_same_edges: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return k, components and degree statistics; warn where the graph falls apart.

    Args:
        graph: N rows.
        of_same_edges: facts of a graph with the same edges and other weights, whose components these are.
    """
    known = of_same_edges and {name: of_same_edges[name] for name in ("components", "largest_component_share")}
    facts = {"k": graph.n_neighbors, **(known or component_facts(graph)), **degree_facts(graph)}
    if not known and facts["components"] > 1:
        logger.warning(
            "The graph has %d connected components, the largest with %.1f%% of the rows: the eigenvalue 0 is "
            "repeated and the first functions only tell components apart. Raise graph.n_neighbors, or set "
            "graph.connect to nearest.",
            facts["components"],
            100 * facts["largest_component_share"],
        )
    return facts


def knn_graph(
    vectors: Vectors, graph_config: GraphConfig, affinity_config: AffinityConfig
) -> tuple[ArrayGraph, dict[str, Any]]:
    """Return the graph of vectors in memory and its facts: the same numbers as the stages write.

    Args:
        vectors: (N, D).
        graph_config: the search.
        affinity_config: the weights.

    Returns:
        graph: (N, K) neighbours and affinities.
        facts: see :func:`graph_facts`.

    Raises:
        ConfigError: the configs contradict each other, or the device cannot do it.
        TooFewRowsError, ConstantDataError: the data has no such graph.
        MissingDependencyError: FAISS is not installed.
    """
    check(graph_config.n_neighbors, affinity_config)
    vectors = under_metric(vectors, graph_config.metric)
    refuse_too_few(vectors, graph_config)
    cuts = query_blocks(vectors, graph_config)
    searched: dict[str, Any] = {}
    if graph_config.searches_cells(vectors.n_rows):
        neighbors, squared_distances, searched = _through_cells(vectors, graph_config)
    else:
        solver = exact_solver(vectors, graph_config)
        found = [solver(vectors, start, stop) for start, stop in cuts]
        neighbors = np.concatenate([ids for ids, _ in found])
        squared_distances = np.concatenate([distances for _, distances in found])
    links = Links.none()
    searched_graph = ArrayGraph(neighbors, squared_distances)
    if graph_config.connect == "nearest":
        links = find_links(searched_graph, vectors)
        searched |= link_facts(links)
    scales = None
    if needs_scales(affinity_config):
        scales = all_scales(row_scales(squared_distances, affinity_config), affinity_config)
    neighbors, squared_distances = links.applied(0, neighbors, squared_distances)
    weights = np.empty(neighbors.shape, np.float16)
    for start, stop in cuts:
        part = slice(start, stop)
        weights[part] = block_affinities(
            start, neighbors[part], squared_distances[part], scales, affinity_config, searched_graph
        )
    graph = ArrayGraph(neighbors, weights)
    return graph, graph_facts(graph) | searched


def _through_cells(
    vectors: Vectors, config: GraphConfig
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, Any]]:
    """Return what the stage would write, by way of a temporary directory."""
    plain = config.model_copy(update={"metric": "l2"})  # the vectors are under the metric already
    with tempfile.TemporaryDirectory(prefix="distspectral-") as folder:
        artifact = Artifact(folder)
        found = search_cells(vectors, artifact, {}, plain, each)
        parts = [read_neighbors(artifact, shard.name) for shard in found.shards]
        neighbors, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return neighbors, distances, found.metrics


def each(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> Iterator[Any]:
    """Call ``function`` on the items one after the other in this process."""
    del description
    return map(function, items)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy: views of mapped files are read-only, which torch warns of
