"""The graph stage: every block of rows finds its neighbours, then every shard of neighbours becomes affinities."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.config import AffinityConfig, GraphConfig, check, refuse_too_few
from distspectral.graph.distances import under_metric
from distspectral.graph.facts import graph_facts
from distspectral.graph.links import Links, find_links, link_facts
from distspectral.graph.search.exact import ExactSolver, exact_solver, query_blocks
from distspectral.graph.search.through_cells import search_cells, sweep
from distspectral.graph.store import (
    AFFINITIES,
    NEIGHBORS,
    SQUARED_DISTANCES,
    MappedGraph,
    read_neighbors,
    write_rows,
)
from distspectral.graph.weights import all_scales, block_affinities, row_scales
from distspectral.mapping import Mapper, local_map
from distspectral.spectral.affinity import needs_scales
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import FleetingVectors, MappedVectors

SCALES = "scales.npy"
LINKS = "links.npz"


def neighbors(vectors: Artifact, output: Output, config: GraphConfig, mapper: Mapper = local_map) -> Manifest:
    """Find the nearest neighbours of every row; one task and one shard per block of query rows.

    Args:
        vectors: the finished ``vectors`` artifact.
        output: where ``neighbors`` is written.
        config: the section ``graph``.
        mapper: runs the tasks.

    Returns:
        The manifest; properties ``k``, ``n_rows``.

    Raises:
        TooFewRowsError, ConstantDataError: the data has no such graph.
        MissingDependencyError: FAISS is not installed.
        ConfigError: the device cannot do it.
    """
    mapped = under_metric(MappedVectors(vectors), config.metric)
    refuse_too_few(mapped.n_rows, config.n_neighbors)
    search = _through_cells if config.searches_cells(mapped.n_rows) else _exactly
    del mapped  # its pages: tasks open their own
    done = output.begin()
    shards, metrics = search(vectors, output.artifact, done, config, mapper)
    files: tuple[str, ...] = ()
    if config.connect == "nearest":
        metrics |= _link(vectors, output.artifact, shards, config)
        files = (LINKS,)
    bare = [shard.model_copy(update={"details": {}}) for shard in shards]
    n_rows = sum(shard.n_rows for shard in shards)
    manifest = output.commit(bare, {"k": config.n_neighbors, "n_rows": n_rows}, metrics, files)
    sweep(output.artifact, done)
    return manifest


def _through_cells(
    vectors: Artifact, output: Artifact, done: dict[str, Shard], config: GraphConfig, mapper: Mapper
) -> tuple[list[Shard], dict[str, Any]]:
    found = search_cells(vectors, output, done, config, mapper)
    return found.shards, found.metrics


def _exactly(
    vectors: Artifact, output: Artifact, done: dict[str, Shard], config: GraphConfig, mapper: Mapper
) -> tuple[list[Shard], dict[str, Any]]:
    mapped = under_metric(MappedVectors(vectors), config.metric)
    solver = exact_solver(mapped, config)
    cuts = query_blocks(mapped, config)
    names = [f"part-{index:05d}.arrow" for index in range(len(cuts))]
    missing = [(name, start, stop) for name, (start, stop) in zip(names, cuts, strict=True) if name not in done]
    task = functools.partial(_search, vectors=vectors, output=output, solver=solver, config=config)
    found = done | {shard.name: shard for shard in mapper(task, missing, "searching neighbours")}
    return [found[name] for name in names], {"surplus_duplicates": len(solver.surplus)}


def _link(vectors: Artifact, output: Artifact, shards: list[Shard], config: GraphConfig) -> dict[str, Any]:
    """Write the links that connect the graph and return what was linked."""
    lists = MappedGraph(output, shards, SQUARED_DISTANCES)
    links = find_links(lists, under_metric(FleetingVectors(vectors), config.metric))
    output.write_file(LINKS, lambda stream: np.savez(stream, **links.arrays()))  # type: ignore[arg-type]
    return link_facts(links)


def _search(
    item: tuple[str, int, int], *, vectors: Artifact, output: Artifact, solver: ExactSolver, config: GraphConfig
) -> Shard:
    name, start, stop = item
    mapped = under_metric(MappedVectors(vectors), config.metric)
    ids, squared_distances = solver(mapped, start, stop)
    return write_rows(output, name, mapped.n_rows, {NEIGHBORS: ids, SQUARED_DISTANCES: squared_distances})


def affinities(neighbors: Artifact, output: Output, config: AffinityConfig, mapper: Mapper = local_map) -> Manifest:
    """Weigh every edge; one task per shard of ``neighbors``, after one cheap pass for the scales of all rows.

    Args:
        neighbors: the finished ``neighbors`` artifact.
        output: where ``graph`` is written.
        config: the section ``affinity``.
        mapper: runs the tasks.

    Returns:
        The manifest; properties ``k``, ``n_rows``, ``components``, ``largest_component_share``, ``total_affinity``,
        ``degree_min``, ``degree_median``, ``degree_max``, ``degree_histogram`` (``counts``, ``edges``).

    Raises:
        ConfigError: the scale neighbour is beyond the neighbours there are.
    """
    source = neighbors.manifest()
    check(source.properties["k"], config)
    done = output.begin()
    if needs_scales(config.kind) and not output.artifact.has(SCALES):
        _write_scales(neighbors, source, output.artifact, config)
    starts = np.cumsum([0, *(shard.n_rows for shard in source.shards)]).tolist()
    missing = [
        (shard.name, start) for shard, start in zip(source.shards, starts, strict=False) if shard.name not in done
    ]
    links = Links.none()
    if LINKS in source.files:
        with np.load(io.BytesIO(neighbors.read_bytes(LINKS))) as arrays:
            links = Links.of(arrays)
    task = functools.partial(
        _weigh, neighbors=neighbors, output=output.artifact, n_rows_global=source.n_rows, config=config, links=links
    )
    done |= {shard.name: shard for shard in mapper(task, missing, "weighing edges")}
    shards = [done[shard.name] for shard in source.shards]
    facts = graph_facts(MappedGraph(output.artifact, shards))
    return output.commit(shards, properties={"n_rows": source.n_rows, **facts}, metrics={})


def _write_scales(neighbors: Artifact, source: Manifest, output: Artifact, config: AffinityConfig) -> None:
    scales = np.concatenate([row_scales(read_neighbors(neighbors, shard.name)[1], config) for shard in source.shards])
    completed = all_scales(scales, config)
    output.write_file(SCALES, functools.partial(np.save, arr=completed))


def _read_scales(output: Artifact) -> NDArray[np.float32]:
    if output.is_local:
        scales: NDArray[np.float32] = np.load(output.file_path(SCALES), mmap_mode="r")
    else:
        scales = np.load(io.BytesIO(output.read_bytes(SCALES)))
    return scales


def _weigh(
    item: tuple[str, int],
    *,
    neighbors: Artifact,
    output: Artifact,
    n_rows_global: int,
    config: AffinityConfig,
    links: Links,
) -> Shard:
    name, start = item
    ids, squared_distances = read_neighbors(neighbors, name)
    ids, squared_distances = links.applied(start, ids, squared_distances)
    scales = _read_scales(output) if needs_scales(config.kind) else None
    lists = MappedGraph(neighbors, weights=SQUARED_DISTANCES) if config.kind == "shared_neighbors" else None
    weights = block_affinities(start, ids, squared_distances, scales, config, lists)
    return write_rows(output, name, n_rows_global, {NEIGHBORS: ids, AFFINITIES: weights})
