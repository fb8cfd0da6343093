"""The supervised objective, from its settings to a trainer over class-balanced batches of labelled rows."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from distspectral.comm import collectives
from distspectral.errors import ConfigError
from distspectral.models.networks import NetworkConfig, torch_device
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormalModel, OrthonormConfig
from distspectral.models.trunks import embedding_network
from distspectral.objectives.batches import LabeledBatch
from distspectral.objectives.class_softmax import ClassSoftmaxObjective
from distspectral.objectives.dscl import DSCLConfig, DSCLObjective
from distspectral.storage.rows.vectors import Labeled, Vectors
from distspectral.training.class_sampling import ClassSampler
from distspectral.training.classes import split_classes
from distspectral.training.loop import Trainer
from distspectral.training.settings import TrainSettings


class DSCLSettings(TrainSettings):
    """All that decides the learned metric besides the data."""

    divisible: ClassVar[bool] = False

    network: NetworkConfig = NetworkConfig()
    dscl: DSCLConfig = DSCLConfig()
    orthonorm: OrthonormConfig = OrthonormConfig()

    def trainer(self, vectors: Vectors, graph: object = None) -> Trainer[OrthonormalModel, LabeledBatch]:
        """Return the trainer on the labels of ``vectors``; see :meth:`TrainSettings.trainer`.

        Raises:
            TooFewClassesError: fewer than two classes to learn from, or to put into a batch.
            ConfigError: the embedding is as wide as a batch is large, or the trunk cannot be used.
        """
        classes, _ = split_classes(labels_of(vectors), self.dscl.train_classes)
        train, width = self.train, self.width(classes)
        sampler = ClassSampler(
            vectors, classes, batch_size=train.batch_size, rows_per_class=self.dscl.rows_per_class, seed=self.seed
        )
        if self.dscl.loss == "projector" and width >= sampler.smallest_batch:
            has_all = sampler.classes_per_batch == len(sampler.classes)  # then only more rows of each make it larger
            more = "dscl.rows_per_class" if has_all else "train.batch_size"
            raise ConfigError(
                f"dscl.n_components: is {width}, but a batch can hold as few as {sampler.smallest_batch} rows "
                f"({sampler.classes_per_batch} classes of at most {self.dscl.rows_per_class}); that many columns span "
                f"everything, so the loss is 0 whatever is learned: lower it or leave it out, or raise {more}",
                ["dscl.n_components", more],
            )
        model = build_model(vectors.dim, self, width)
        model.network.standardize_by(vectors.mean, vectors.scale)  # type: ignore[operator]
        model.to(torch_device(train.device))
        network = self._synchronized(model.network)
        return Trainer(model, network, self.objective(model), sampler, train, vectors.n_rows)

    def objective(self, model: OrthonormalModel) -> DSCLObjective | ClassSoftmaxObjective:
        """Return what a step on the model minimises."""
        if self.dscl.loss == "softmax":
            return ClassSoftmaxObjective(model.orthonormal, self.dscl)
        return DSCLObjective(model.orthonormal, next(model.network.parameters()).dtype)

    def width(self, classes: NDArray[np.int64]) -> int:
        """Return P: where nobody gives it, the number of classes in a batch, as in the paper; few rows carry less.

        Args:
            classes: (N,) of the rows; negative: not learned from.
        """
        if self.dscl.n_components is not None:
            return self.dscl.n_components
        rows_per_class = self.dscl.rows_per_class
        counts = np.bincount(classes[classes >= 0])
        sizes = np.sort(np.minimum(counts[counts > 0], rows_per_class))
        n_classes = max(min(self.train.batch_size // rows_per_class, len(sizes)), 1)
        return max(min(n_classes, int(sizes[:n_classes].sum()) // 2), 1)

    @property
    def shape(self) -> dict[str, Any]:
        """Width of the embedding, where it is given."""
        return {} if self.dscl.n_components is None else {"n_components": self.dscl.n_components}

    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return the embedding's width and where the learned classes end."""
        labels = labels_of(vectors)
        classes, last = split_classes(labels, self.dscl.train_classes)
        return {
            "dim": vectors.dim,
            "n_components": self.width(classes),
            "n_train_classes": int(classes.max()) + 1,
            "n_classes": len(np.unique(labels)),
            "last_train_class": last,
        }

    def _synchronized(self, network: nn.Module) -> nn.Module:
        """Refuse batch statistics where several ranks would each keep their own."""
        names = [
            name
            for name, module in network.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        ]
        if collectives.world_size() > 1 and names:
            raise ConfigError(
                f"network.trunk: {self.network.trunk} has batch normalisation ({names[0]}), whose statistics "
                f"would differ between the {collectives.world_size()} workers; use GroupNorm or LayerNorm, on GPUs "
                "torch.nn.SyncBatchNorm, or ray.workers = 1",
                ["network.trunk", "ray.workers"],
            )
        return network


def build_model(dim: int, settings: DSCLSettings, width: int | None = None) -> OrthonormalModel:
    """Return the untrained model, the same on every rank.

    Args:
        dim: features of a row.
        settings: of the training.
        width: P, as labels decided; None: as the settings say.
    """
    width = settings.dscl.n_components if width is None else width
    assert width is not None, "labels or settings decide"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = embedding_network(dim, width, settings.network)
    orthonorm = settings.orthonorm
    if settings.dscl.loss == "softmax":  # so that the layer's outputs are compared in the metric of the loss
        orthonorm = orthonorm.model_copy(update={"jitter": settings.dscl.ridge})
    return OrthonormalModel(network, OrthonormalLayer(width, orthonorm))


def labels_of(vectors: Vectors) -> NDArray[Any]:
    """Return the labels (N,) of labelled vectors.

    Raises:
        ConfigError: there are none, or rows lack theirs.
    """
    labels = vectors.labels() if isinstance(vectors, Labeled) else None
    if labels is None:
        raise ConfigError(
            "data.label_column: is not set, and objective dscl learns from labels; name their column",
            ["data.label_column"],
        )
    if n_lacking := getattr(labels, "null_count", 0):
        raise ConfigError(
            f"data.label_column: {n_lacking:,} of {len(labels):,} rows have no label, and objective dscl learns from "
            "labels; fill them, or drop the rows",
            ["data.label_column"],
        )
    array = np.asarray(labels)
    return array.astype(str) if array.dtype == object else array
