"""The trained functions, polished with the whole graph to nearly exact eigenfunctions: what distillation teaches.

Shape letters: N rows, E functions trained, P kept.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from distspectral.costs.bill import Bill
from distspectral.errors import ConfigError
from distspectral.graph.certified import polished_functions
from distspectral.graph.store import MappedGraph
from distspectral.spectral.polish import can_polish, polish_bytes
from distspectral.spectral.rayleigh import Laplacian
from distspectral.stages.encoding import WRITER_BYTES, forward_piece, passed
from distspectral.stages.stage import Manifests, Piece, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.rows.moments import Moments
from distspectral.storage.rows.shard_rows import write_columns
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.text import plural
from distspectral.training.distill import load_trained_network

POLISHING = "polishing"


def _run(work: Work) -> Manifest:
    """Write the artifact ``polished``: of each row its mass and E - 1 functions, the constant one left out."""
    output, settings = work.output, work.settings["train"]
    n_rows, n_neighbors = work.seen[0].manifest().n_rows, work.graph.manifest().properties["k"]
    if not can_polish(n_rows, settings.n_functions, n_neighbors):  # the recipe does not know a given graph's
        needed = polish_bytes(n_rows, settings.n_functions, n_neighbors) / 2**30
        raise ConfigError(
            f"graph.path: a polish of {n_rows:,} rows with {n_neighbors:,} neighbours takes {needed:.0f} GiB; set "
            "distill.enabled: false, and the functions are learned on edges alone",
            ["graph.path", "distill.enabled"],
        )
    output.begin()
    load = functools.partial(load_trained_network, work.artifacts["train"])
    features = passed(work.seen, load, output, settings.train.device, work.mapper)
    task = functools.partial(_polish, features, work.graph, output.artifact, settings.spectral.laplacian)
    ((shards, facts),) = work.mapper(task, [work.settings["distill"].n_functions], POLISHING)
    features.delete()
    moments = Moments.of_shards(shards)
    properties = {
        "dim": len(moments.mean),
        "dtype": "float32",
        "mean": moments.mean.tolist(),
        "variance": moments.variance,
    }
    return output.commit(shards, properties | {key: facts.pop(key) for key in ("eigenvalues", "filters")}, facts)


def _polish(
    features: Artifact, graph: Artifact, output: Artifact, laplacian: Laplacian, n_kept: int
) -> tuple[list[Shard], dict[str, Any]]:
    """Write the polished functions, shard for shard as the rows lie; one task, of the whole graph."""
    rows = MappedVectors(features)
    trained = rows.block(0, rows.n_rows)
    exact, mass, found = polished_functions(trained, MappedGraph(graph), n_kept, laplacian)
    columns = np.column_stack([mass.astype(np.float32), exact])
    shards = []
    for shard, start in features.manifest().shards_and_first_rows:
        if shard.n_rows:
            own = columns[start : start + shard.n_rows]
            shards.append(write_columns(output, shard.name, {"vector": own}, Moments.of(own).details()))
    facts = {"eigenvalues": found.values.tolist(), "filters": dataclasses.asdict(found.filters)}
    return shards, facts | {"passes": found.filters.n_passes, "converged": found.converged}


def _cost(bill: Bill) -> None:
    (seen, graph), n_functions = bill.recipe.learns_from["train"], bill.settings["train"].n_functions
    assert graph is not None, "eigenfunctions are those of a graph"
    bill.through(("train",), bill.us("encoding"))
    bill.alone()
    features = bill.n_rows * (4 * n_functions + 16)
    bill.read = bill.kept_by(*seen, graph) + features
    bill.scratch, bill.written = features, features + bill.kept
    bill.driver({}, bill.n_rows * bill.us(POLISHING) / 1e6)
    bill.worker_bytes += max(WRITER_BYTES, polish_bytes(bill.n_rows, n_functions, bill.settings["graph"].n_neighbors))


def _pieces(work: Work) -> dict[str, Piece]:
    return forward_piece(load_trained_network(work.artifacts["train"]), work.seen)


def _facts(manifests: Manifests) -> dict[str, Any]:
    return {key: manifests["polish"].metrics[key] for key in ("passes", "converged")}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    ended = "" if facts["converged"] else ", which did not suffice"
    return {"polish": f"{plural(facts['passes'], 'product')} with the graph{ended}"}


POLISH = Stage(
    name="polish",
    folder="polished",
    purpose="Polish the trained functions with the whole graph, to nearly exact eigenfunctions.",
    done="polished",
    inputs=lambda recipe: (*recipe.may_see, recipe.embedded_graph, "train"),
    sections=("train.n_components",),
    workers="tasks",
    run=_run,
    cost=_cost,
    pieces=_pieces,
    facts=_facts,
    lines=_lines,
)
