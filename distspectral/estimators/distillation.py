"""Polish and distillation of the eigenfunctions of rows in memory; the stages do the same over artifacts.

Shape letters: N rows, E functions trained, P taught.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distspectral.embedding.forward import in_blocks
from distspectral.estimators.representation import Representation
from distspectral.estimators.trainings import Trainings
from distspectral.graph.certified import polished_functions
from distspectral.models.networks import SpectralNetwork
from distspectral.models.orthonorm_layer import SpectralModel
from distspectral.objectives.batches import TeachingBatch
from distspectral.recipes import SpectralRecipe
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.distill import DistillSettings
from distspectral.training.loop import Trainer


def distilled(
    trained: SpectralNetwork, represented: Representation, recipe: SpectralRecipe, trainings: Trainings
) -> tuple[Trainer[SpectralModel, TeachingBatch], NDArray[np.float32], NDArray[np.float64]]:
    """Return the trained network that learned the first polished functions, and what lies behind these.

    Args:
        trained: on the graph's edges; it is not changed.
        represented: the graph, and the rows as the network sees them.
        recipe: one that distills.
        trainings: of this fit.

    Returns:
        trainer: at its end, of a network of P functions.
        functions: (N, E - P) polished ones that it did not learn.
        values: at most (E - P,) their eigenvalues.
    """
    settings = recipe.trainings["distill"]
    assert isinstance(settings, DistillSettings), settings
    seen, n_functions = represented.seen, settings.n_functions
    learned = in_blocks(trained, seen)
    exact, mass, found = polished_functions(learned, represented.graph, n_functions, recipe.spectral.laplacian)
    taught = ArrayVectors(np.column_stack([mass.astype(np.float32), exact]))
    parts = seen.parts if isinstance(seen, JoinedVectors) else (seen,)
    trainer = settings.trainer_upon(trained, JoinedVectors([*parts, taught]))
    trainings.go_on("distill", trainer)
    return trainer, exact[:, n_functions - 1 :], found.values[n_functions:]
