"""The eigenfunctions of rows in memory: trained, polished and taught, calibrated, certified, as the stages do it.

Shape letters: N rows, E functions trained, P kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.calibration.edge_sums import edge_sums
from distspectral.calibration.residuals import ResidualSample
from distspectral.embedding.forward import in_blocks
from distspectral.estimators.representation import Representation
from distspectral.estimators.trainings import Trainings
from distspectral.graph.certified import aligned_functions, certified, polished_functions
from distspectral.models.networks import Perceptron, SpectralNetwork
from distspectral.models.orthonorm_layer import SpectralModel
from distspectral.objectives.batches import TeachingBatch
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.certificate import Certificate, as_note
from distspectral.spectral.polish import can_polish
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.distill import DistillSettings
from distspectral.training.loop import Trainer


@dataclasses.dataclass(frozen=True)
class Eigenfunctions:
    """What was learned of a graph.

    Attributes:
        network: emits the P functions, in the order of their eigenvalues, on the CPU.
        eigenvalues: (P,) of the polish, or Ritz values, ascending.
        spectrum: these and those of functions that are not kept.
        certificate: of the P functions.
        steps: of the last training.
        ended: why it ended.
        section: of the config, that it is told in.
    """

    network: Perceptron
    eigenvalues: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    certificate: Certificate
    steps: int
    ended: str
    section: Literal["train", "distill"]

    def note(self, certificate: Mapping[str, Any], names: Mapping[str, str], n_clusters: int | None) -> str | None:
        """Return what to tell of functions that cannot be trusted, None of others; see :func:`as_note`.

        Args:
            certificate: facts of theirs, knowing how clusters weigh them.
            names: see :func:`as_note`.
            n_clusters: likewise.
        """
        if certificate["verdict"] not in ("bad", "unproven"):
            return None
        return as_note(certificate, self.steps, self.ended, names, n_clusters, self.section)


def eigenfunctions(represented: Representation, recipe: SpectralRecipe, trainings: Trainings) -> Eigenfunctions:
    """Return the eigenfunctions of a graph.

    Args:
        represented: the graph, and the rows as the network sees them.
        recipe: how they are learned.
        trainings: of this fit.

    Raises:
        NonFiniteStepError, RankDeficientError: training cannot go on.
    """
    seen, graph, settings = represented.seen, represented.graph, recipe.functions
    trainer: Trainer[SpectralModel, Any] = settings.trainer(seen, graph)
    trainings.fit("train", trainer)
    if recipe.distills:
        trainer, (rotation, certificate), values = _distilled(trainer.model.network, represented, recipe, trainings)
    else:
        functions = ArrayVectors(in_blocks(trainer.model.network, seen))
        n_rows, laplacian = functions.n_rows, settings.spectral.laplacian
        polishes = can_polish(n_rows, functions.dim, graph.n_neighbors)
        sample = None if polishes else ResidualSample.drawn(n_rows, functions.dim, recipe.seed)
        sums = edge_sums(functions, graph, 0, n_rows, laplacian, None if sample is None else sample.add)
        rotation, values = sums.ritz_functions(laplacian)
        rotation = rotation[:, : settings.n_components]
        if sample is None:
            certificate = certified(functions.block(0, n_rows), graph, rotation.shape[1], laplacian)
        else:
            certificate = sample.certificate(sums, settings)
    return Eigenfunctions(
        trainer.model.network.cpu().folded(torch.from_numpy(rotation)),
        values[: rotation.shape[1]],
        values,
        certificate,
        trainer.step,
        trainer.schedule.ended_because(trainer.objective.watched),
        "distill" if recipe.distills else "train",
    )


def _distilled(
    trained: SpectralNetwork, represented: Representation, recipe: SpectralRecipe, trainings: Trainings
) -> tuple[Trainer[SpectralModel, TeachingBatch], tuple[NDArray[np.float64], Certificate], NDArray[np.float64]]:
    """Return the trainer of the network that learned the first polished functions, and what is known of these.

    Args:
        trained: on the graph's edges; it is not changed.
        represented: the graph, and the rows as the network sees them.
        recipe: one that distills.
        trainings: of this fit.

    Returns:
        trainer: at its end, of a network of P functions.
        aligned: of :func:`distspectral.graph.certified.aligned_functions`.
        values: at most (E,) eigenvalues of the polished functions.
    """
    settings = recipe.trainings["distill"]
    assert isinstance(settings, DistillSettings), settings
    seen, graph, laplacian = represented.seen, represented.graph, recipe.spectral.laplacian
    exact, mass, found = polished_functions(in_blocks(trained, seen), graph, settings.n_functions, laplacian)
    taught = ArrayVectors(np.column_stack([mass.astype(np.float32), exact]))
    parts = seen.parts if isinstance(seen, JoinedVectors) else (seen,)
    trainer = settings.trainer_upon(trained, JoinedVectors([*parts, taught]))
    trainings.go_on("distill", trainer)
    learned, n_carried = in_blocks(trainer.model.network, seen), min(recipe.n_components, len(found.values))
    aligned = aligned_functions(learned, mass, exact, found.filters, graph, n_carried, laplacian)
    return trainer, aligned, found.values
