"""Training of the map on the graph's edges, the functions being finished: two coordinates for every row."""

from __future__ import annotations

from typing import Any

from distspectral.models.map_network import MapNetwork
from distspectral.stages.stage import Manifests, training_stage
from distspectral.storage.artifact.directory import Artifact
from distspectral.training.checkpoint import restored


def load_map(trained: Artifact) -> MapNetwork:
    """Return the network of a finished ``map`` artifact on the CPU, ready to evaluate."""
    return restored(trained, "model.pt", MapNetwork.from_state)


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
    harmless=("map.train.enabled", "map.model"),
    facts=_facts,
    lines=_lines,
)
