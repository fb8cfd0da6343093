"""Neighbour lists to a weighted graph: every distance becomes an affinity."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.costs.bill import Bill
from distspectral.embedding.forward import BLOCK_ROWS
from distspectral.graph.config import AffinityConfig, check
from distspectral.graph.facts import EDGE_FACTS, degree_facts, edge_facts, graph_facts, hubs_in_words
from distspectral.graph.links import Links
from distspectral.graph.store import AFFINITIES, NEIGHBORS, SQUARED_DISTANCES, MappedGraph, write_rows
from distspectral.graph.weights import all_scales, block_affinities, row_scales
from distspectral.mapping import Mapper, local_map
from distspectral.spectral.affinity import needs_scales
from distspectral.stages.neighbors import LINKS
from distspectral.stages.stage import Manifests, Piece, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.shard_rows import ShardRows

SCALES = ".scales.npy"
DRIVER_ROW_BYTES = 32
"""Of a row at the peak of finding components: four numbers of eight bytes."""


def affinities(neighbors: Artifact, output: Output, config: AffinityConfig, mapper: Mapper = local_map) -> Manifest:
    """Weigh every edge; one task per shard of ``neighbors``, after one cheap pass for the scales of all rows.

    Args:
        neighbors: the finished ``neighbors`` artifact.
        output: where ``graph`` is written.
        config: the section ``affinity``.
        mapper: runs the tasks.

    Returns:
        The manifest; properties ``k``, ``n_rows``, ``total_affinity``, those of :data:`EDGE_FACTS`,
        ``degree_min``, ``degree_median``, ``degree_max``, ``degree_histogram`` (``counts``, ``edges``).

    Raises:
        ConfigError: the scale neighbour is beyond the neighbours there are.
    """
    source = neighbors.manifest()
    check(source.properties["k"], config)
    done = output.begin()
    if needs_scales(config.kind) and not output.artifact.has(SCALES):
        scales = all_scales(_scales(neighbors, source, config, mapper), config)
        output.artifact.write_file(SCALES, functools.partial(np.save, arr=scales))
    missing = [item for item in _items(source) if item[0].name not in done]
    links = Links.none()
    if LINKS in source.files:
        with np.load(io.BytesIO(neighbors.read_bytes(LINKS))) as arrays:
            links = Links.of(arrays)
    task = functools.partial(
        _weigh, neighbors=neighbors, output=output.artifact, n_rows_global=source.n_rows, config=config, links=links
    )
    done |= {shard.name: shard for shard in mapper(task, missing, "weighing edges")}
    shards = [done[shard.name] for shard in source.shards]
    facts = graph_facts(MappedGraph(output.artifact, shards, reread=True))
    return output.commit(shards, properties={"n_rows": source.n_rows, **facts}, metrics={})


def _items(source: Manifest) -> list[tuple[Shard, int]]:
    """Return each shard and its first row."""
    starts = np.cumsum([0, *(shard.n_rows for shard in source.shards)]).tolist()
    return list(zip(source.shards, starts, strict=False))


def _scales(neighbors: Artifact, source: Manifest, config: AffinityConfig, mapper: Mapper) -> NDArray[np.float32]:
    """Return the scale (N,) of every row that its own list tells."""
    scales = np.empty(source.n_rows, np.float32)
    task = functools.partial(_shard_scales, neighbors=neighbors, config=config)
    for start, found in mapper(task, _items(source), "taking scales"):
        scales[start : start + len(found)] = found
    return scales


def _shard_scales(
    item: tuple[Shard, int], *, neighbors: Artifact, config: AffinityConfig
) -> tuple[int, NDArray[np.float32]]:
    shard, start = item
    (squared_distances,) = ShardRows(neighbors, [shard], [SQUARED_DISTANCES]).block(0, shard.n_rows)
    return start, row_scales(squared_distances, config)


def _read_scales(output: Artifact) -> NDArray[np.float32]:
    """Return the scales (N,) of all rows, mapped: where they are remote, a node fetches them once for all its tasks."""
    return output.load_array(SCALES)


def _weigh(
    item: tuple[Shard, int],
    *,
    neighbors: Artifact,
    output: Artifact,
    n_rows_global: int,
    config: AffinityConfig,
    links: Links,
) -> Shard:
    shard, start = item
    ids, squared_distances = MappedGraph(neighbors, [shard], SQUARED_DISTANCES).block(0, shard.n_rows)
    ids, squared_distances = links.applied(start, ids, squared_distances)
    scales = _read_scales(output) if needs_scales(config.kind) else None
    lists = MappedGraph(neighbors, weights=SQUARED_DISTANCES) if config.kind == "shared_neighbors" else None
    weights = block_affinities(start, ids, squared_distances, scales, config, lists)
    return write_rows(output, shard.name, n_rows_global, {NEIGHBORS: ids, AFFINITIES: weights})


# ---- the declarations ----------------------------------------------------------------------------------------


def driver_cost(bill: Bill, *pieces: str, fixed_s: float = 0.0) -> None:
    """Add what a stage does one after the other with a graph.

    Args:
        bill: of the stage.
        pieces: what the driver does for every row; what else it does is taken to be the same whatever the rows.
        fixed_s: beyond that, seconds whatever the rows.
    """
    parts = {name: bill.us(name) for name in pieces}
    bill.driver(parts, fixed_s + max(bill.alone_s - sum(parts.values()) * bill.rates.sample_rows / 1e6, 0.0))
    bill.worker_bytes += 24 * BLOCK_ROWS * bill.settings["graph"].n_neighbors
    bill.driver_bytes += DRIVER_ROW_BYTES * bill.n_rows


def fact_piece(facts: Callable[[MappedGraph], Any], graph: Artifact) -> Piece:
    """Return facts of a finished graph as a piece of work."""
    mapped = MappedGraph(graph, reread=True)
    return Piece(lambda: facts(mapped), mapped.n_rows)


def graph_stage(
    name: str,
    purpose: str,
    inputs: Callable[[Any], tuple[str, ...]],
    run: Callable[[Work], Manifest],
    told: tuple[str, ...] = (),
    note: Callable[[dict[str, Any]], str | None] = lambda facts: None,
    **more: Any,
) -> Stage:
    """Return a stage that writes a graph, whatever weighs its edges.

    Args:
        name: of the stage.
        purpose: what it does.
        inputs: see :class:`distspectral.stages.stage.Stage`.
        run: likewise.
        told: properties of its manifest that are facts too, where it has them.
        note: a sentence of the report on those facts, where there is something to say.
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
        lines=lambda facts: {name.replace("_", " "): _in_words(facts)},
        notes=lambda metrics: [*_notes(metrics[name]), *filter(None, [note(metrics[name])])],
        **more,
    )


def _in_words(facts: dict[str, Any]) -> str:
    share = facts["largest_component_share"]
    return f"k = {facts['k']}, {facts['components']} components, largest {share:.1%} of the rows"


def _notes(facts: dict[str, Any]) -> list[str]:
    hubs = hubs_in_words(facts)
    notes = [] if hubs is None else [hubs]
    if facts["components"] == 1:
        return notes
    return [
        *notes,
        f"The graph has {facts['components']} components that no edge joins; the first functions tell them apart. "
        "Raise graph.n_neighbors or set graph.connect to nearest if they should be one.",
    ]


def _weighing(name: str, purpose: str, lists: str) -> Stage:
    """Return a stage that weighs the edges of the lists that another one wrote."""

    def run(work: Work) -> Manifest:
        return affinities(work.artifacts[lists], work.output, work.settings["affinity"], work.mapper)

    def cost(bill: Bill) -> None:
        bill.cores({"scales": bill.us("taking scales"), "weigh": bill.us("weighing edges")})
        driver_cost(bill, "components", "degrees")
        bill.read = 2 * bill.kept_by(lists) + 2 * bill.kept
        bill.written = bill.kept + 4 * bill.n_rows

    def pieces(work: Work) -> dict[str, Piece]:
        graph = work.artifacts[name]
        return {"components": fact_piece(edge_facts, graph), "degrees": fact_piece(degree_facts, graph)}

    return graph_stage(
        name,
        purpose,
        lambda recipe: (lists,),
        run,
        cost=cost,
        pieces=pieces,
        sections=("affinity",),
        harmless=("affinity.scope", "affinity.space"),
    )


GRAPH = _weighing("graph", "Weigh the edges.", "neighbors")
SIAMESE_GRAPH = _weighing("siamese_graph", "Weigh the edges between the new neighbours.", "siamese_neighbors")
