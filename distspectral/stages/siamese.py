"""Training of the Siamese network on the graph's edges, whose distances weigh them anew."""

from __future__ import annotations

from typing import Any

from distspectral.stages.stage import Manifests, training_stage


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["siamese"].metrics
    shown = ("steps", "pairs_per_second", "loss", "neighbor_distance", "negative_distance")
    return {key: found[key] for key in shown}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    distances = f"neighbours {facts['neighbor_distance']:.2f} apart, others {facts['negative_distance']:.2f}"
    return {"Siamese network": f"{facts['steps']:,} steps; {distances}"}


SIAMESE = training_stage(
    "siamese",
    folder="siamese",
    purpose="Train the Siamese network on the graph's edges.",
    done="trained",
    inputs=lambda recipe: (*recipe.may_search, "graph"),
    harmless=("siamese.train.use",),
    facts=_facts,
    lines=_lines,
)
