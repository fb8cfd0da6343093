"""Every row's nearest neighbours: by exact search block by block, inside overlapping cells, or from a given graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distspectral.costs.bill import GPU_SHARE, PCIE, Bill, Map
from distspectral.costs.search import GPU_FEED_US, expected_join, gpu_copy_bytes, gpu_pair, pooled_rows
from distspectral.graph.config import GraphConfig, refuse_too_few
from distspectral.graph.distances import under_metric
from distspectral.graph.given import GivenGraph
from distspectral.graph.linking import LINK_TASKS, find_links
from distspectral.graph.links import link_facts
from distspectral.graph.runs import Lists, shard_runs
from distspectral.graph.search.cells import cell_bytes
from distspectral.graph.search.cuts import run_counts
from distspectral.graph.search.exact import ExactSolver, exact_solver, query_blocks, rows_per_task
from distspectral.graph.search.sampling import LEAST_CELL_ROWS
from distspectral.graph.search.through_cells import search_cells, sweep
from distspectral.graph.search.tuning import group_rows
from distspectral.graph.store import NEIGHBORS as IDS
from distspectral.graph.store import SQUARED_DISTANCES, write_rows
from distspectral.mapping import Mapper, local_map
from distspectral.recipes import SpectralRecipe
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.filesystems import absolute
from distspectral.storage.rows.by_row import ByRow
from distspectral.storage.rows.shard_rows import bare
from distspectral.storage.rows.vectors import MappedVectors

LINKS = ".links.npz"
GIVEN_ROWS, GIVEN_BYTES = 1 << 20, 128
"""Of a given graph: most rows of a shard, and bytes that a task takes for each neighbour, about."""


def neighbors(
    vectors: Artifact, output: Output, config: GraphConfig, mapper: Mapper = local_map, *, precomputed: bool = False
) -> Manifest:
    """Find the nearest neighbours of every row; one task and one shard per block of query rows.

    Args:
        vectors: the finished ``vectors`` artifact.
        output: where ``neighbors`` is written.
        config: the section ``graph``; a metric left open is Euclidean.
        mapper: runs the tasks.
        precomputed: whether a graph that ``config`` names has affinities.

    Returns:
        The manifest; properties ``k``, ``n_rows``, and ``searched``, the stage that wrote the rows, or ``given``;
        metrics of the search, and ``metric``.

    Raises:
        TooFewRowsError, ConstantDataError: the data has no such graph.
        SourceError: a graph that ``config`` names has lists that are none.
        MissingDependencyError: FAISS is not installed.
        ConfigError: the device cannot do it.
    """
    n_rows = vectors.manifest().n_rows
    k, searched = config.n_neighbors, vectors.manifest().stage
    config = config.model_copy(update={"metric": config.stated_metric})
    if config.path is not None:
        given = GivenGraph.open(absolute(config.path), precomputed=precomputed)
        given.require_rows(n_rows)
        k, searched = given.n_neighbors, "given"
        shards, metrics = _given(given, output.artifact, output.begin(), config, mapper)
        done: dict[str, Shard] = {}
    else:
        refuse_too_few(n_rows, config.n_neighbors)
        done = output.begin()
        search = _through_cells if config.searches_cells(n_rows) else _exactly
        shards, metrics = search(vectors, output.artifact, done, config, mapper)
        metrics = {"metric": config.metric} | metrics
    files: tuple[str, ...] = ()
    if config.connect == "nearest":
        metrics |= _link(vectors, output, shards, config, mapper)
        files = (LINKS,)
    properties = {"k": k, "n_rows": n_rows, "searched": searched}
    manifest = output.commit([bare(shard) for shard in shards], properties, metrics, files)
    sweep(output.artifact, done)
    return manifest


def _given(
    graph: GivenGraph, output: Artifact, done: dict[str, Shard], config: GraphConfig, mapper: Mapper
) -> tuple[list[Shard], dict[str, Any]]:
    """Take over the lists of a graph: a task for each shard, or one for all where rows are reached one by one."""
    graph = graph.with_largest()
    rows = _given_rows(config, graph.n_neighbors)
    starts = range(0, graph.n_rows, rows)
    spans = [(f"part-{i:05d}.arrow", start, min(start + rows, graph.n_rows)) for i, start in enumerate(starts)]
    missing = [span for span in spans if span[0] not in done]
    items = [missing] if graph.is_sequential and missing else [[span] for span in missing]
    task = functools.partial(_take_over, graph=graph, output=output)
    found = done | {one.name: one for shards in mapper(task, items, "reading neighbours") for one in shards}
    return [found[name] for name, _, _ in spans], {"metric": config.metric, "given": graph.uri}


def _given_rows(config: GraphConfig, n_neighbors: int) -> int:
    """Return the rows of a shard of a given graph."""
    return config.block_rows or max(1, min(GIVEN_ROWS, config.task_memory // (GIVEN_BYTES * (n_neighbors + 1))))


def _take_over(spans: list[tuple[str, int, int]], *, graph: GivenGraph, output: Artifact) -> list[Shard]:
    blocks = graph.blocks([(start, stop) for _, start, stop in spans])
    return [
        write_rows(output, name, graph.n_rows, {IDS: ids, SQUARED_DISTANCES: squared})
        for (name, _, _), (ids, squared) in zip(spans, blocks, strict=True)
    ]


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
    items = [(f"part-{index:05d}.arrow", *cut) for index, cut in enumerate(cuts)]
    task = functools.partial(_search, vectors=vectors, output=output, solver=solver, config=config)
    shards = write_missing(done, mapper, task, items, "searching neighbours", on_gpu=True)
    return shards, {"surplus_duplicates": len(solver.surplus)}


def _link(
    vectors: Artifact, output: Output, shards: list[Shard], config: GraphConfig, mapper: Mapper
) -> dict[str, Any]:
    """Write the links that connect the graph and return what was linked."""
    lists = Lists(output.artifact, sum(shard.n_rows for shard in shards), SQUARED_DISTANCES)
    rows = ByRow(output)
    links = find_links(lists, shard_runs(shards), vectors, config.metric, rows, mapper)
    output.artifact.write_file(LINKS, lambda stream: np.savez(stream, **links.arrays()))  # type: ignore[arg-type]
    rows.artifact.delete()
    return link_facts(links)


def _search(
    item: tuple[str, int, int], *, vectors: Artifact, output: Artifact, solver: ExactSolver, config: GraphConfig
) -> Shard:
    name, start, stop = item
    mapped = under_metric(MappedVectors(vectors), config.metric)
    ids, squared_distances = solver(mapped, start, stop)
    return write_rows(output, name, mapped.n_rows, {IDS: ids, SQUARED_DISTANCES: squared_distances})


FOUND = (
    "given",
    "metric",
    "cells",
    "copies",
    "predicted_copies",
    "copies_error",
    "largest_cell_rows",
    "largest_cell_bound",
    "predicted_recall",
    "predicted_recall_error",
    "reached_recall",
    "completed_rows",
    "surplus_duplicates",
    "components_before",
    "links",
)
"""What a search says of itself; most of it only where rows were cut into cells."""


def list_shards(bill: Bill, stage: str) -> int:
    """Return how many shards a stage that searches writes its lists to, each a task."""
    n_rows, dim, config = math.ceil(bill.n_rows), bill.rates.searches[stage].dim, bill.settings["graph"]
    if config.path is not None and stage == "neighbors":
        return -(-n_rows // _given_rows(config, config.n_neighbors))
    if config.searches_cells(n_rows):
        return run_counts(n_rows, dim, config)[1]
    return -(-n_rows // (config.block_rows or rows_per_task(n_rows, dim)))


def _cost(bill: Bill) -> None:
    bill.maps = [Map(list_shards(bill, bill.stage), gpus=1.0)]
    rows, rate, config = bill.n_rows, bill.rates.searches[bill.stage], bill.settings["graph"]
    searched = bill.kept_by(bill.recipe.searches[bill.stage])
    bill.worker_bytes += config.task_memory
    linked = {"link": sum(map(bill.us, LINK_TASKS))} if config.connect == "nearest" else {}
    if config.path is not None and bill.stage == "neighbors":
        bill.read, bill.written = bill.kept, bill.kept
        if linked:
            bill.cores(linked)
        return
    bill.read, bill.written = 2 * searched, bill.kept
    sample_rows = bill.rates.sample_rows
    if not config.searches_cells(int(rows)):
        bill.cores({"all pairs": rate.pair_us * rows} | linked)
        return
    gpu, workers = bill.machines.gpu, bill.machines.workers
    join = expected_join(rate, config, rows, sample_rows, gpu is not None)
    parts = dict(join.parts_us) | linked
    if gpu is not None:
        del parts["solve"]
        parts["feed"] = GPU_FEED_US * join.copies
        pairs, (pair_s, words) = join.copies**2 * join.cell_rows, gpu_pair(gpu, rate.dim)
        sent = join.copies * gpu_copy_bytes(rate.dim)
        formula = f"N x ({pairs:,.0f} pairs x {words} / {GPU_SHARE:g} + {sent:,.0f} B / {PCIE:.2g}) / {workers} GPUs"
        bill.add("GPUs", rows * (pairs * pair_s / GPU_SHARE + sent / PCIE) / workers, formula)
    bill.cores(parts)
    bill.driver_bytes += join.cells * cell_bytes(rate.dim)
    pooled = pooled_rows(config, rate.dim, rows, join.cells)
    more = max(pooled / pooled_rows(config, rate.dim, sample_rows, rate.cells), 1.0)
    choosing_s = more * bill.us("choosing cells") * sample_rows / 1e6  # one task, all else waits
    bill.driver({}, bill.alone_s + choosing_s)
    drawn = min(pooled_rows(config, rate.dim, rows, rows / LEAST_CELL_ROWS) / rows, 1.0)
    lists, routed = join.copies * rows * 8.0 * config.n_neighbors, join.copies * (searched + rows * 40)
    bill.scratch = routed + lists + drawn * searched
    in_cells = group_rows(config, join.solver, rate.dim, join.copies * rows)
    n_read, n_merged = run_counts(math.ceil(rows), rate.dim, config)
    bill.maps = [  # a sample's true neighbours, routing, solving, merging; what reads the sample is left out
        Map(n_read, join.parts_us["sample"], searched, drawn * searched),
        Map(n_read, join.parts_us["route"], searched, routed),
        Map(_halved(join.copies * rows, in_cells), parts.get("solve", parts.get("feed", 0.0)), routed, lists, gpus=1.0),
        Map(n_merged, join.parts_us["merge"] + sum(linked.values()), lists, bill.written),
    ]
    bill.read, bill.written = bill.read + bill.scratch, bill.written + bill.scratch


def _halved(copies: float, most: float) -> int:
    """Return into how many groups cells are halved until each has at most so many copies of rows."""
    return 1 << max(math.ceil(math.log2(copies / most)), 0)


def _stage(name: str, purpose: str, inputs: Callable[[SpectralRecipe], tuple[str, ...]]) -> Stage:
    """Return a stage that searches among the rows that the recipe names for it."""

    def run(work: Work) -> Manifest:
        searched = work.artifacts[work.recipe.searches[name]]
        config = work.settings["graph"].model_copy(update={"metric": work.spectral.metric_of(name)})
        if name != "neighbors":  # which are always searched
            config = config.model_copy(update={"path": None})
        precomputed = work.settings["affinity"].kind == "precomputed"
        return neighbors(searched, work.output, config, work.mapper, precomputed=precomputed)

    def facts(manifests: Manifests) -> dict[str, Any]:
        return {key: manifests[name].metrics[key] for key in FOUND if key in manifests[name].metrics}

    return Stage(
        name=name,
        folder=name.replace("_", "-"),
        purpose=purpose,
        done="searched neighbours",
        inputs=inputs,
        sections=("graph",),
        harmless=("graph.device", "graph.path"),
        workers="tasks",
        run=run,
        cost=_cost,
        facts=facts,
    )


NEIGHBORS = _stage(
    "neighbors",
    "Search every row's nearest neighbours.",
    lambda recipe: (*recipe.may_search, *(("trial",) if recipe.is_tried else ())),
)
SIAMESE_NEIGHBORS = _stage(
    "siamese_neighbors",
    "Search the neighbours anew, in the Siamese space.",
    lambda recipe: ("features",),
)
