"""New weights for the edges that are there, from distances in a learned space: one streaming pass, no second search.

Shape letters: N rows, E features.
"""

from __future__ import annotations

import functools

import numpy as np

from distspectral.costs.bill import Bill
from distspectral.graph.facts import degree_facts, graph_facts
from distspectral.graph.store import AFFINITIES, NEIGHBORS, MappedGraph, write_rows
from distspectral.graph.weights import MEDIAN_ROWS, median_squared_distance, reweighted_rows
from distspectral.mapping import Mapper, local_map
from distspectral.stages.graph import driver_cost, fact_piece, graph_stage
from distspectral.stages.stage import Piece, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors


def reweight(graph: Artifact, features: Artifact, output: Output, mapper: Mapper = local_map) -> Manifest:
    """Write a graph with the edges of ``graph`` and the weights exp(-d^2 / (2 median d^2)).

    Args:
        graph: finished ``graph`` artifact.
        features: finished vectors artifact over the same rows, (N, E), whose distances d count.
        output: where the new ``graph`` artifact goes.
        mapper: hands out the shards that are still missing.

    Returns:
        The manifest; properties as of :func:`distspectral.stages.graph.affinities`.
    """
    source = graph.manifest()
    done = output.begin()
    (median,) = mapper(functools.partial(_median, features=features), [graph], "taking the median")
    starts = np.cumsum([0, *(shard.n_rows for shard in source.shards)]).tolist()
    missing = [
        (shard.name, start, start + shard.n_rows)
        for shard, start in zip(source.shards, starts, strict=False)
        if shard.name not in done
    ]
    task = functools.partial(_reweigh, graph=graph, features=features, output=output.artifact, median=median)
    done |= {shard.name: shard for shard in mapper(task, missing, "reweighting edges")}
    shards = [done[shard.name] for shard in source.shards]
    facts = graph_facts(MappedGraph(output.artifact, shards, reread=True), of_same_edges=source.properties)
    return output.commit(shards, properties={"n_rows": source.n_rows, **facts}, metrics={})


def _median(graph: Artifact, *, features: Artifact) -> float:
    return median_squared_distance(MappedGraph(graph), MappedVectors(features))


def _reweigh(
    item: tuple[str, int, int], *, graph: Artifact, features: Artifact, output: Artifact, median: float
) -> Shard:
    name, start, stop = item
    edges = MappedGraph(graph)
    neighbors, weights = reweighted_rows(edges, MappedVectors(features), start, stop, median)
    return write_rows(output, name, edges.n_rows, {NEIGHBORS: neighbors, AFFINITIES: weights})


def _run(work: Work) -> Manifest:
    return reweight(work.artifacts["graph"], work.artifacts["features"], work.output, work.mapper)


def _cost(bill: Bill) -> None:
    bill.cores({"reweight": bill.us("reweighting edges")})
    median_s = bill.us("taking the median") * min(bill.n_rows, MEDIAN_ROWS) / 1e6  # one task, before all others
    driver_cost(bill, "degrees", fixed_s=median_s)  # the edges are the same, so their components are known
    bill.read = bill.kept_by("graph", "features") + 2 * bill.kept
    bill.written = bill.kept


def _pieces(work: Work) -> dict[str, Piece]:
    return {"degrees": fact_piece(degree_facts, work.artifacts["reweight"])}


REWEIGHT = graph_stage(
    "reweight",
    "Weigh the same edges by Siamese distances.",
    ("graph", "features"),
    _run,
    cost=_cost,
    pieces=_pieces,
)
