"""What the artifacts of a run tell its recipe."""

from __future__ import annotations

from collections.abc import Mapping

from distspectral.graph.trial import Trial
from distspectral.recipes import Recipe
from distspectral.stages.codes import CODES
from distspectral.stages.trial import TRIAL
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.filesystems import absolute


def as_begun(recipe: Recipe) -> Recipe:
    """Return the recipe with what the trial of the run decided that it starts from, if there was one."""
    if recipe.start_from is None:
        return recipe
    return knowing(recipe, {TRIAL.name: Artifact(absolute(recipe.start_from)).child(TRIAL.folder)})


def knowing(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> Recipe:
    """Return the recipe, knowing what the finished artifacts tell: how a trial ended, what variance codes keep.

    Args:
        recipe: of the run.
        artifacts: of the run, by stage; those that it has not made, or not yet, tell nothing.
    """
    found = {
        name: artifacts[name].manifest().properties
        for name in (TRIAL.name, CODES.name)
        if name in artifacts and artifacts[name].has(MANIFEST)
    }
    return recipe.knowing(
        found[CODES.name]["explained_variance"] if CODES.name in found else None,
        Trial.of(found[TRIAL.name]) if TRIAL.name in found else None,
    )
