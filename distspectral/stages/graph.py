"""Neighbour lists to a weighted graph: every distance becomes an affinity."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.costs.bill import Bill, Map
from distspectral.graph.config import AffinityConfig, check
from distspectral.graph.contraction import BY_ROW as CONTRACTION
from distspectral.graph.contraction import JOINING, contracted, small_components
from distspectral.graph.facts import EDGE_FACTS, Tally, all_facts, hubs_in_words, pieces_in_words
from distspectral.graph.links import Links
from distspectral.graph.runs import BLOCK_ROWS, Lists, Run, run_count, shard_runs
from distspectral.graph.store import AFFINITIES, NEIGHBORS, SQUARED_DISTANCES, MappedGraph, write_rows
from distspectral.graph.stratified import StratifiedRows
from distspectral.graph.weights import block_affinities, completed, median_scale, row_scales
from distspectral.mapping import Mapper, in_order, local_map
from distspectral.spectral.affinity import needs_scales
from distspectral.stages.neighbors import LINKS, list_shards
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.by_row import ByRow, read_parts, write_part
from distspectral.storage.rows.shard_rows import ShardRows
from distspectral.text import plural

SCALES = "scales.npy"
COMPONENTS = "component"
SCALING, JOINING_SCALES, COUNTING = "taking scales", "joining scales", "counting degrees"
TALLY_BYTES = 1 << 27
"""Of the driver and of a worker that count for sampled rows, about, whatever the rows."""


def affinities(neighbors: Artifact, output: Output, config: AffinityConfig, mapper: Mapper = local_map) -> Manifest:
    """Weigh every edge; one task per shard of ``neighbors``, after one cheap pass for the scales of all rows.

    Args:
        neighbors: the finished ``neighbors`` artifact.
        output: where ``graph`` is written.
        config: the section ``affinity``.
        mapper: runs the tasks.

    Returns:
        The manifest; properties ``k``, ``n_rows``, those of :data:`EDGE_FACTS`, those of
        :meth:`distspectral.graph.facts.Tally.degree_facts`, and ``component_file`` (see :func:`finished`).

    Raises:
        ConfigError: the scale neighbour is beyond the neighbours there are.
    """
    source = neighbors.manifest()
    check(source.properties["k"], config)
    done = output.begin()
    rows = ByRow(output)
    if needs_scales(config.kind):
        task = functools.partial(_shard_scales, neighbors=neighbors, artifact=rows.artifact, config=config)
        parts = [(f"scales-{index:05d}.arrow", run) for index, run in enumerate(shard_runs(source.shards))]
        change = functools.partial(_completed, config=config)
        rows.join(SCALES, rows.run(task, parts, mapper, SCALING), mapper, JOINING_SCALES, change=change)
    task = functools.partial(
        _weigh,
        neighbors=neighbors,
        output=output.artifact,
        scales=rows.artifact,
        n_rows_global=source.n_rows,
        config=config,
        links=read_links(neighbors, source),
    )
    items = [(shard.name, shard, first) for shard, first in source.shards_and_first_rows]
    return finished(output, write_missing(done, mapper, task, items, "weighing edges"), rows, mapper)


def finished(
    output: Output,
    shards: list[Shard],
    rows: ByRow,
    mapper: Mapper,
    of_same_edges: tuple[Artifact, Manifest] | None = None,
    **told: Any,
) -> Manifest:
    """Take the facts of a graph whose shards are written, and write its manifest.

    Args:
        output: where it is.
        shards: in row order.
        rows: where numbers of rows are written, which are no longer wanted.
        mapper: runs the tasks.
        of_same_edges: graph with the same edges and other weights, and its manifest, whose facts on edges these are.
        told: further properties.

    Returns:
        The manifest; property ``component_file`` names the file with the component of each row, None of a graph in one.
    """
    runs, n_rows = shard_runs(shards), sum(shard.n_rows for shard in shards)
    lists = Lists(output.artifact, n_rows, AFFINITIES)
    tally = Tally(n_rows)
    for part in in_order(mapper, functools.partial(_count, lists=lists), runs, COUNTING):
        tally.merge(part)
    n_neighbors = MappedGraph(output.artifact, shards[:1]).n_neighbors
    if of_same_edges is None:
        found = contracted(lists, runs, rows, mapper, name=COMPONENTS, to=output.artifact)
        file = found.labels
        components = {
            "components": found.components,
            "largest_component_share": found.largest / n_rows,
            "small_components": small_components(lists, found, rows, mapper, output.artifact),
        }
        facts = all_facts(tally, n_neighbors, components)
    else:
        graph, manifest = of_same_edges
        if (file := manifest.properties["component_file"]) is not None and not output.artifact.has(file):
            list(mapper(functools.partial(_copy, graph, output.artifact), [file], "copying components"))
        facts = all_facts(tally, n_neighbors, None, manifest.properties)
    properties = {"n_rows": n_rows, **facts, "component_file": file, **told}
    rows.artifact.delete()
    return output.commit(shards, properties, {}, files=() if file is None else (file,))


def read_links(neighbors: Artifact, source: Manifest) -> Links:
    """Return the links beside the lists of a finished ``neighbors`` artifact, none where there are none."""
    if LINKS not in source.files:
        return Links.none()
    with np.load(io.BytesIO(neighbors.read_bytes(LINKS))) as arrays:
        return Links.of(arrays)


# ---- tasks -------------------------------------------------------------------------------------------------------


def _shard_scales(item: tuple[str, Run], *, neighbors: Artifact, artifact: Artifact, config: AffinityConfig) -> Shard:
    """Write the scale of every row of a run that its own list tells."""
    name, run = item
    lists = (ShardRows(neighbors, [shard], [SQUARED_DISTANCES]).block(0, shard.n_rows)[0] for shard in run.shards)
    return write_part(artifact, name, np.concatenate([row_scales(one, config) for one in lists]))


def _completed(
    artifact: Artifact, parts: Sequence[Shard], *, config: AffinityConfig
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what makes scales positive: by the median of sampled rows."""
    sample, start, found = StratifiedRows(sum(part.n_rows for part in parts)), 0, []
    for scales in read_parts(artifact, parts):
        found.append(scales[sample.rows[sample.stretch(start, start + len(scales))] - start])
        start += len(scales)
    return functools.partial(completed, config=config, median=median_scale(np.concatenate(found)))


def _weigh(
    item: tuple[str, Shard, int],
    *,
    neighbors: Artifact,
    output: Artifact,
    scales: Artifact,
    n_rows_global: int,
    config: AffinityConfig,
    links: Links,
) -> Shard:
    """Write one shard; where scales are remote, a node fetches them once for all its tasks."""
    name, shard, start = item
    ids, squared_distances = MappedGraph(neighbors, [shard], SQUARED_DISTANCES).block(0, shard.n_rows)
    ids, squared_distances = links.applied(start, ids, squared_distances)
    all_scales = scales.load_array(SCALES) if needs_scales(config.kind) else None
    lists = MappedGraph(neighbors, weights=SQUARED_DISTANCES) if config.kind == "shared_neighbors" else None
    weights = block_affinities(start, ids, squared_distances, all_scales, config, lists)
    return write_rows(output, name, n_rows_global, {NEIGHBORS: ids, AFFINITIES: weights})


def _count(run: Run, *, lists: Lists) -> tuple[NDArray[np.int64], NDArray[np.int64], Any, float]:
    """Return what a run's edges add to the tally of sampled rows."""
    tally = Tally(lists.n_rows)
    for start, edges in lists.blocks(run):
        tally.add(start, *edges)
    return tally.part()


def _copy(graph: Artifact, output: Artifact, name: str) -> None:
    """Copy the numbers of all rows from graph to graph."""
    array = graph.load_array(name)
    output.write_file(name, functools.partial(np.save, arr=array))


# ---- the declarations ----------------------------------------------------------------------------------------


def n_runs(bill: Bill, lists: str) -> int:
    """Return how many tasks pass over a graph of the lists that a stage wrote."""
    return run_count(math.ceil(bill.n_rows), list_shards(bill, lists))


def facts_cost(bill: Bill, lists: str, maps: dict[str, Map], joins: tuple[str, ...] = (), fixed_s: float = 0.0) -> None:
    """Add what it takes to weigh edges and to tell what the graph is like.

    Args:
        bill: of the stage.
        lists: stage whose lists became edges.
        maps: tasks by what they do, ``cores`` in core-microseconds of a row; each kind is taken to have one map, though
            components are found in several rounds.
        joins: kinds of tasks that work alone, one for all rows.
        fixed_s: seconds of one task alone, whatever the rows.
    """
    maps = maps | {"count": Map(n_runs(bill, lists), bill.us(COUNTING), bill.kept, 0.0)}
    bill.maps = list(maps.values())
    bill.cores({name: one.cores for name, one in maps.items()})
    bill.driver({name: bill.us(name) for name in joins}, fixed_s + bill.alone_s)
    # files with a number for every row are mapped, and shared by all tasks of a node
    bill.worker_bytes += 40 * BLOCK_ROWS * bill.settings["graph"].n_neighbors + TALLY_BYTES
    bill.driver_bytes += TALLY_BYTES


def graph_stage(
    name: str,
    purpose: str,
    inputs: Callable[[Any], tuple[str, ...]],
    run: Callable[[Work], Manifest],
    told: tuple[str, ...] = (),
    lines: Callable[[dict[str, Any]], dict[str, str]] = lambda facts: {},
    **more: Any,
) -> Stage:
    """Return a stage that writes a graph, whatever weighs its edges.

    Args:
        name: of the stage.
        purpose: what it does.
        inputs: see :class:`distspectral.stages.stage.Stage`.
        run: likewise.
        told: properties of its manifest that are facts too, where it has them.
        lines: on those facts, by what they tell; see :attr:`distspectral.stages.stage.Stage.lines`.
        more: the rest of the declaration.
    """

    def facts(manifests: Manifests) -> dict[str, Any]:
        properties = manifests[name].properties
        return {key: properties[key] for key in ("k", *EDGE_FACTS, *told) if key in properties}

    return Stage(
        name=name,
        folder=name.replace("_", "-"),
        purpose=purpose,
        done="weighed edges",
        inputs=inputs,
        workers="tasks",
        run=run,
        facts=facts,
        lines=lambda facts: {name.replace("_", " "): _in_words(facts), **lines(facts)},
        notes=lambda metrics: _notes(metrics[name], metrics.get("cluster")),
        **more,
    )


def _in_words(facts: dict[str, Any]) -> str:
    share = facts["largest_component_share"]
    return f"k = {facts['k']}, {plural(facts['components'], 'component')}, largest {share:.1%} of the rows"


def _notes(facts: dict[str, Any], clusters: dict[str, Any] | None) -> list[str]:
    return [words for words in (hubs_in_words(facts), pieces_in_words(facts, clusters)) if words is not None]


def _weighing(name: str, purpose: str, lists: str) -> Stage:
    """Return a stage that weighs the edges of the lists that another one wrote."""

    def run(work: Work) -> Manifest:
        return affinities(work.artifacts[lists], work.output, work.settings["affinity"], work.mapper)

    def cost(bill: Bill) -> None:
        join = sum(map(bill.us, CONTRACTION))
        listed, found = bill.kept_by(lists), 3 * bill.kept + 24 * bill.n_rows
        maps = {
            "scales": Map(n_runs(bill, lists), bill.us(SCALING), listed, 0.0),
            "weigh": Map(list_shards(bill, lists), bill.us("weighing edges"), listed, bill.kept),
            "components": Map(n_runs(bill, lists), join, found, 24 * bill.n_rows),
        }
        facts_cost(bill, lists, maps, (JOINING_SCALES, JOINING))
        bill.read = 2 * bill.kept_by(lists) + 4 * bill.kept + 24 * bill.n_rows
        bill.written, bill.scratch = bill.kept + 24 * bill.n_rows, 24 * bill.n_rows

    return graph_stage(
        name,
        purpose,
        lambda recipe: (lists,),
        run,
        cost=cost,
        sections=("affinity",),
        harmless=("affinity.scope", "affinity.space"),
    )


GRAPH = _weighing("graph", "Weigh the edges.", "neighbors")
SIAMESE_GRAPH = _weighing("siamese_graph", "Weigh the edges between the new neighbours.", "siamese_neighbors")
