"""The graph of rows in memory, by the same search and the same weights as the stages write shard by shard.

Shape letters: N rows, B rows of a block, K neighbours.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import AffinityConfig, GraphConfig, check, refuse_too_few
from distspectral.graph.distances import under_metric
from distspectral.graph.facts import graph_facts
from distspectral.graph.links import Links, find_links, link_facts
from distspectral.graph.search.all_pairs import all_pairs, joined, searches_products
from distspectral.graph.search.exact import query_blocks
from distspectral.graph.search.lists import Neighbors
from distspectral.graph.search.through_cells import search_cells
from distspectral.graph.store import ArrayGraph, read_neighbors
from distspectral.graph.weights import all_scales, block_affinities, row_scales
from distspectral.mapping import local_map
from distspectral.spectral.affinity import needs_scales
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import Vectors


def knn_graph(
    vectors: Vectors,
    graph_config: GraphConfig,
    affinity_config: AffinityConfig,
    lists: Neighbors | None = None,
    *,
    quiet: bool = False,
) -> tuple[ArrayGraph, dict[str, Any]]:
    """Return the graph of vectors in memory and its facts: the same numbers as the stages write; warn of what is wrong.

    Args:
        vectors: (N, D).
        graph_config: the search; a metric left open is Euclidean.
        affinity_config: the weights.
        lists: neighbours and squared distances, (N, K) each, that were found elsewhere; None searches.
        quiet: do not warn of components and hubs, which the facts tell, too.

    Returns:
        graph: (N, K) neighbours and affinities.
        facts: see :func:`graph_facts`; ``metric``, and what a search through cells found.

    Raises:
        ConfigError: the configs contradict each other, or the device cannot do it.
        TooFewRowsError, ConstantDataError: the data has no such graph.
        MissingDependencyError: FAISS is not installed.
    """
    graph, searched = searched_graph(vectors, graph_config, affinity_config, lists)
    return graph, graph_facts(graph, quiet=quiet) | searched


def searched_graph(
    vectors: Vectors, graph_config: GraphConfig, affinity_config: AffinityConfig, given: Neighbors | None = None
) -> tuple[ArrayGraph, dict[str, Any]]:
    """Return the graph of :func:`knn_graph`, and of its facts those that the search tells."""
    searched: dict[str, Any] = {"metric": graph_config.stated_metric}
    graph_config = graph_config.model_copy(update=searched)
    if given is not None:
        check(given[0].shape[1], affinity_config)
    else:
        check(graph_config.n_neighbors, affinity_config)
        refuse_too_few(vectors.n_rows, graph_config.n_neighbors)
    if given is not None:
        neighbors, squared_distances = given
    elif graph_config.searches_cells(vectors.n_rows) and not searches_products(vectors):
        neighbors, squared_distances, found = _through_cells(vectors, graph_config)
        searched |= found
    else:
        neighbors, squared_distances = all_pairs(vectors, graph_config)
    links = Links.none()
    lists = ArrayGraph(neighbors, squared_distances)
    if graph_config.connect == "nearest":
        links = find_links(lists, under_metric(vectors, graph_config.metric))
        searched |= link_facts(links)
    scales = None
    if needs_scales(affinity_config.kind):
        scales = all_scales(row_scales(squared_distances, affinity_config), affinity_config)
    neighbors, squared_distances = links.applied(0, neighbors, squared_distances)
    weights = np.empty(neighbors.shape, np.float16)
    for start, stop in query_blocks(vectors, graph_config):
        part = slice(start, stop)
        weights[part] = block_affinities(
            start, neighbors[part], squared_distances[part], scales, affinity_config, lists
        )
    return ArrayGraph(neighbors, weights), searched


def _through_cells(
    vectors: Vectors, config: GraphConfig
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, Any]]:
    """Return what the stage would write, by way of a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="distspectral-") as folder:
        artifact = Artifact(folder)
        found = search_cells(vectors, artifact, {}, config, local_map)
        return *joined([read_neighbors(artifact, shard.name) for shard in found.shards]), found.metrics
