"""Training of the network on the polished functions: one process here; ``orchestration.train`` runs the same ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from distspectral.stages.stage import Manifests, training_stage

PARTED = 4.0
"""Times as much left unexplained at rows never taught as at others, from which on a reader is told."""
MUCH = 0.1
"""Share left unexplained, as clusters weigh functions, below which nobody is. On MNIST's graph as large an error cost
.14 of the accuracy; shares of 2.7% of the titles' and of 5.5% of blobs' functions cost new rows nothing."""

FEW = 200
"""Rows of a run of which one in twenty are too few to judge by."""


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["distill"].metrics
    told = ("steps", "stopped_because", "rows_per_second", "loss", "held_out_loss", "held_out_losses")
    return {key: found[key] for key in told if key in found}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    taught, others = facts["loss"], facts["held_out_loss"]
    return {
        "distillation": f"{facts['steps']:,} steps leave {taught:.2%} of the functions' squares unexplained, "
        f"{others:.2%} at rows never taught"
    }


def _notes(metrics: dict[str, Any]) -> list[str]:
    """Return what to tell of rows never taught, functions weighed as clusters weigh them, where that is known."""
    found, certificate = metrics["distill"], metrics.get("calibrate", {}).get("certificate", {})
    taught, others = found["loss"], found["held_out_loss"]
    weights, each = certificate.get("weights", [])[1:], found.get("held_out_losses", [])
    if weights and len(weights) == len(each):
        others = min(others, float(np.average(each, weights=weights)))
    if metrics.get("n_rows", FEW) < FEW or others <= max(
        MUCH, PARTED * min(taught, certificate.get("mean_sin2", taught))
    ):
        return []
    return [
        f"The functions of rows that were never taught are less exact: {found['held_out_loss']:.1%} of their squares "
        f"are left unexplained, {others:.1%} as clusters weigh them, and {taught:.1%} of the others'. New rows will "
        "fare no better; more rows would help."
    ]


DISTILL = training_stage(
    "distill",
    folder="distilled",
    purpose="Train the network on, on the polished functions.",
    done="distilled",
    inputs=lambda recipe: (*recipe.may_see, "train", "polish"),
    harmless=("distill.train.enabled", "distill.trained"),
    facts=_facts,
    lines=_lines,
    notes=_notes,
)
