"""The stages as plain functions: artifacts in, one artifact out, no Ray; and all their declarations."""

from __future__ import annotations

from collections.abc import Mapping

from distspectral.recipes import MetricRecipe, Recipe, SpectralRecipe
from distspectral.stages.autoencoder import AUTOENCODER
from distspectral.stages.calibrate import CALIBRATE
from distspectral.stages.cluster import CLUSTER
from distspectral.stages.codes import CODES
from distspectral.stages.distill import DISTILL
from distspectral.stages.embed import EMBED
from distspectral.stages.embed_metric import EMBED_METRIC
from distspectral.stages.evaluate import EVALUATE
from distspectral.stages.exemplars import EXEMPLARS
from distspectral.stages.features import FEATURES
from distspectral.stages.graph import GRAPH, SIAMESE_GRAPH
from distspectral.stages.map import MAP
from distspectral.stages.neighbors import NEIGHBORS, SIAMESE_NEIGHBORS
from distspectral.stages.pack import PACK
from distspectral.stages.pca import PCA
from distspectral.stages.polish import POLISH
from distspectral.stages.reweight import REWEIGHT
from distspectral.stages.siamese import SIAMESE
from distspectral.stages.stage import Stage
from distspectral.stages.train import TRAIN
from distspectral.stages.tree import TREE
from distspectral.stages.trial import TRIAL


def _by_name(*stages: Stage) -> Mapping[str, Stage]:
    return {stage.name: stage for stage in stages}


STAGES: Mapping[str, Mapping[str, Stage]] = {
    SpectralRecipe.kind: _by_name(
        PACK,
        TRIAL,
        AUTOENCODER,
        PCA,
        CODES,
        NEIGHBORS,
        GRAPH,
        SIAMESE,
        FEATURES,
        REWEIGHT,
        SIAMESE_NEIGHBORS,
        SIAMESE_GRAPH,
        TRAIN,
        POLISH,
        DISTILL,
        CALIBRATE,
        CLUSTER,
        TREE,
        MAP,
        EMBED,
        EXEMPLARS,
    ),
    MetricRecipe.kind: _by_name(PACK, TRAIN, EMBED_METRIC, EVALUATE),
}
"""Every stage there is, by kind of run and name, in the order of a run."""

NAMES = tuple(dict.fromkeys(name for stages in STAGES.values() for name in stages))
FOLDERS = tuple(dict.fromkeys(stage.folder for stages in STAGES.values() for stage in stages.values()))
"""Of every artifact that a run can hold."""


def stages_of(recipe: Recipe) -> list[Stage]:
    """Return the stages of a run, in order."""
    return [STAGES[recipe.kind][name] for name in recipe.chain]


def stage_named(name: str) -> Stage:
    """Return the stage of a name; where kinds of run have one each, that of the first."""
    return next(stages[name] for stages in STAGES.values() if name in stages)
