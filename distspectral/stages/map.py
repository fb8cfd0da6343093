"""Training of the map on the graph's edges, the functions being finished: two coordinates for every row."""

from __future__ import annotations

from typing import Any

from distspectral.costs.training import SCAN
from distspectral.graph.store import MappedGraph
from distspectral.models.map_network import MapNetwork
from distspectral.models.state import restored
from distspectral.stages.stage import Manifests, Piece, Work, training_stage
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.joined import open_vectors
from distspectral.training.map import build_map_sampler


def load_map(trained: Artifact) -> MapNetwork:
    """Return the network of a finished ``map`` artifact on the CPU, ready to evaluate."""
    return restored(trained, "model.pt", MapNetwork.from_state)


def _pieces(work: Work) -> dict[str, Piece]:
    """Return the pass over the graph from which edges are drawn."""
    rows, graph = open_vectors(work.seen), MappedGraph(work.graph, reread=True)
    return {SCAN: Piece(lambda: build_map_sampler(rows, graph, work.settings["map"]), rows.n_rows)}


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["map"].metrics
    return {key: found[key] for key in ("steps", "edges_per_second", "loss", "neighbor_distance", "radius")}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    near, all_of = facts["neighbor_distance"], facts["radius"]
    return {"map": f"{facts['steps']:,} steps; neighbours {near:.2f} apart, rows {all_of:.2f} from the middle"}


MAP = training_stage(
    "map",
    folder="map",
    purpose="Train the map: two coordinates of a row, to look at.",
    done="drew the map",
    inputs=lambda recipe: (*recipe.may_see, recipe.embedded_graph, "calibrate"),
    harmless=("map.train.enabled", "map.model", "map.start_model"),
    pieces=_pieces,
    facts=_facts,
    lines=_lines,
)
