"""Training of the network on the polished functions: one process here; ``orchestration.train`` runs the same ranks."""

from __future__ import annotations

from typing import Any

from distspectral.stages.stage import Manifests, training_stage

PARTED = 4.0
"""Times as much left unexplained at rows never taught as at others, from which on a reader is told."""
MUCH = 0.02
"""Share left unexplained below which nobody is."""


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["distill"].metrics
    return {key: found[key] for key in ("steps", "stopped_because", "rows_per_second", "loss", "held_out_loss")}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    taught, others = facts["loss"], facts["held_out_loss"]
    return {
        "distillation": f"{facts['steps']:,} steps leave {taught:.2%} of the functions' squares unexplained, "
        f"{others:.2%} at rows never taught"
    }


def _notes(metrics: dict[str, Any]) -> list[str]:
    found = metrics["distill"]
    if found["held_out_loss"] <= max(MUCH, PARTED * found["loss"]):
        return []
    return [
        f"The functions of rows that were never taught are less exact: {found['held_out_loss']:.1%} of their squares "
        f"are left unexplained, {found['loss']:.1%} of the others'. New rows will fare no better; more rows would help."
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
