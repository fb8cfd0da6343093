"""Training of the autoencoder, whose codes neighbours may be searched in."""

from __future__ import annotations

import functools
from typing import Any

from distspectral.costs.training import training
from distspectral.stages.stage import Manifests, training_stage


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["autoencoder"].metrics
    return {key: found[key] for key in ("steps", "rows_per_second", "loss")}


AUTOENCODER = training_stage(
    "autoencoder",
    folder="autoencoder",
    purpose="Train the autoencoder.",
    done="trained",
    inputs=lambda recipe: ("pack",),
    cost=functools.partial(training, mirrored=True),
    facts=_facts,
    lines=lambda facts: {"autoencoder": f"{facts['steps']:,} steps"},
)
