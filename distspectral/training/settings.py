"""All that decides a trained model besides the data: one frozen model per objective, each able to build its trainer.

A new objective adds its settings beside the others; the step, the loop, the stage and the Ray workers stay as
they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from distspectral.frozen import FrozenModel
from distspectral.graph.store import Graph
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.draws import Draws
from distspectral.training.loop import Trainer


class TrainSettings(FrozenModel, ABC):
    """What every objective needs; subclasses add their own sections."""

    divisible: ClassVar[bool] = True
    """Whether part of a batch is a batch: of items drawn one by one, not of whole classes."""

    train: TrainConfig = TrainConfig()
    seed: int = 0
    start_from: str | None = None
    """URI of a finished training of the same shape, whose weights are the first ones here."""

    def upon(self, artifacts: Mapping[str, Artifact]) -> Self:
        """Return the settings, knowing where finished networks lie that this one is trained upon, if there are any.

        Args:
            artifacts: what every stage of the run writes, by its name.
        """
        del artifacts
        return self

    @abstractmethod
    def trainer(self, vectors: Vectors, graph: Graph | None = None) -> Trainer[Any, Any]:
        """Return a trainer at step 0 on this rank's device: the same call for one process, a group and Ray's workers.

        Args:
            vectors: all N rows, with labels where the objective learns from them; or
                :class:`~distspectral.training.drawn.DrawnVectors`, whose batches are then taken.
            graph: neighbours and affinities of all N rows, where the objective needs them.

        Communication: that of the sampler's construction, and DDP's broadcast of the initial weights.
        """

    def first_weights(
        self, weights: Mapping[str, Tensor], trainer: Trainer[Any, Any], moved: bool
    ) -> Mapping[str, Tensor]:
        """Return the weights of ``start_from`` in the terms of this training: as they are, or as they must be changed.

        Args:
            weights: state dict of the finished training's model.
            trainer: at step 0.
            moved: whether that training's rows lay in another frame.

        Raises:
            RuntimeError: the finished model has another shape.
        """
        del trainer, moved
        return weights

    def draws(self, n_rows: int) -> Draws | None:
        """Return what the training draws of N rows, should its batches be drawn before it begins.

        None where they cannot be.
        """
        del n_rows
        return None

    def n_finishing(self, n_rows: int) -> int:
        """Return how many items pass the network once more after the last step of a training on N rows, at most."""
        del n_rows
        return 0

    @property
    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """What must be equal, beside the width of the rows, for one model's weights to fit another; part of `facts`."""

    @abstractmethod
    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return what the manifest says of the model, JSON-serialisable."""
