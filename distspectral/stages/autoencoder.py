"""Training of the autoencoder, whose codes neighbours may be searched in."""

from __future__ import annotations

from typing import Any

from distspectral.stages.stage import Manifests, Work, training_stage
from distspectral.storage.artifact.manifest import Manifest


def _run(work: Work) -> Manifest:
    return work.train((work.artifacts["pack"],), None, work.output, work.settings["autoencoder"])


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["autoencoder"].metrics
    return {key: found[key] for key in ("steps", "rows_per_second", "loss")}


AUTOENCODER = training_stage(
    "autoencoder",
    folder="autoencoder",
    purpose="Train the autoencoder.",
    done="trained",
    inputs=lambda recipe: ("pack",),
    run=_run,
    facts=_facts,
    lines=lambda facts: {"autoencoder": f"{facts['steps']:,} steps"},
)
