"""New weights for the edges that are there, from distances in a learned space: one streaming pass, no second search.

Shape letters: N rows, E features.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from distspectral.clustering.fragmentation import TRIAL_ROWS, Fragmentation, fragmentation
from distspectral.costs.bill import Bill, Map
from distspectral.graph.store import AFFINITIES, NEIGHBORS, MappedGraph, write_rows
from distspectral.graph.weights import MEDIAN_ROWS, median_squared_distance, reweighted_rows
from distspectral.mapping import Mapper, local_map
from distspectral.stages.graph import facts_cost, finished, graph_stage
from distspectral.stages.neighbors import list_shards
from distspectral.stages.stage import Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing
from distspectral.storage.rows.by_row import ByRow
from distspectral.storage.rows.vectors import MappedVectors

Judge = Callable[[Artifact], Fragmentation]


def reweight(
    graph: Artifact, features: Artifact, output: Output, mapper: Mapper = local_map, judge: Judge | None = None
) -> Manifest:
    """Write a graph with the edges of ``graph`` and the weights exp(-d^2 / (2 median d^2)).

    Args:
        graph: finished ``graph`` artifact.
        features: finished vectors artifact over the same rows, (N, E), whose distances d count.
        output: where the new ``graph`` artifact goes.
        mapper: hands out the shards that are still missing.
        judge: tells of ``graph`` whether the new weights would fragment it: its own are then written again. None: the
            new ones are taken.

    Returns:
        The manifest; properties as of :func:`distspectral.stages.graph.affinities`, and ``fragmentation``, the fields
        of :class:`distspectral.clustering.fragmentation.Fragmentation`, if judged.
    """
    source = graph.manifest()
    done = output.begin()
    judged = median = None
    if judge is not None:
        (judged,) = mapper(judge, [graph], "judging weights")
    if judged is None or not judged.fragments:
        (median,) = mapper(functools.partial(_median, features=features), [graph], "taking the median")
    items = [(shard.name, start, start + shard.n_rows) for shard, start in source.shards_and_first_rows]
    task = functools.partial(_reweigh, graph=graph, features=features, output=output.artifact, median=median)
    shards = write_missing(done, mapper, task, items, "reweighting edges")
    told = {} if judged is None else {"fragmentation": dataclasses.asdict(judged)}
    return finished(output, shards, ByRow(output), mapper, (graph, source), **told)


def _median(graph: Artifact, *, features: Artifact) -> float:
    return median_squared_distance(MappedGraph(graph), MappedVectors(features))


def _reweigh(
    item: tuple[str, int, int], *, graph: Artifact, features: Artifact, output: Artifact, median: float | None
) -> Shard:
    """Write one shard; without a median the weights are those of ``graph``."""
    name, start, stop = item
    edges = MappedGraph(graph)
    if median is None:
        neighbors, kept = edges.block(start, stop)
        weights = kept.astype(np.float16)
    else:
        neighbors, weights = reweighted_rows(edges, MappedVectors(features), start, stop, median)
    return write_rows(output, name, edges.n_rows, {NEIGHBORS: neighbors, AFFINITIES: weights})


def _judge(graph: Artifact, *, rows: Artifact, features: Artifact, **settings: Any) -> Fragmentation:
    return fragmentation(MappedVectors(rows), MappedVectors(features), MappedGraph(graph), **settings)


def _run(work: Work) -> Manifest:
    features, judge = work.artifacts["features"], None
    if work.settings["affinity"].space == "auto":
        metric = work.artifacts["neighbors"].manifest().metrics["metric"]
        judge = functools.partial(
            _judge,
            rows=work.artifacts[work.recipe.searched],
            features=features,
            search=work.settings["graph"].model_copy(update={"metric": metric}),
            affinity=work.settings["affinity"],
            n_clusters=work.settings["cluster"].n_clusters,
            seed=work.recipe.seed,
        )
    return reweight(work.artifacts["graph"], features, work.output, work.mapper, judge)


def _cost(bill: Bill) -> None:
    median_s = bill.us("taking the median") * min(bill.n_rows, MEDIAN_ROWS) / 1e6  # one task, before all others
    judging_s = bill.us("judging weights") * min(bill.n_rows, TRIAL_ROWS) / 1e6  # likewise
    # the edges are the same: their components are known
    read = bill.kept_by("graph", "features")
    weighing = Map(list_shards(bill, "neighbors"), bill.us("reweighting edges"), read, bill.kept)
    facts_cost(bill, "neighbors", {"reweight": weighing}, fixed_s=median_s + judging_s)
    bill.worker_bytes = max(bill.worker_bytes, float(bill.settings["graph"].task_memory))  # of the trial
    bill.read = read + 2 * bill.kept
    bill.written = bill.kept


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    found = facts.get("fragmentation")
    return {} if found is None else {"weights": Fragmentation(**found).in_words}


REWEIGHT = graph_stage(
    "reweight",
    "Weigh the same edges by Siamese distances.",
    lambda recipe: ("neighbors", "graph", "features", *recipe.may_search),
    _run,
    cost=_cost,
    sections=("affinity.space", "cluster.n_clusters", "seed"),
    told=("fragmentation",),
    lines=_lines,
)
