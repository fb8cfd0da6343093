"""The spectral objective, from its settings to a trainer over the edges of a graph."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt

from distspectral.graph.config import AffinityConfig
from distspectral.graph.store import Graph
from distspectral.models.encoded import Space
from distspectral.models.networks import NetworkConfig, SpectralNetwork, torch_device
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig, SpectralModel
from distspectral.objectives.batches import EdgeBatch
from distspectral.objectives.spectral import SpectralConfig, SpectralObjective
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.drawn import DrawnEdgeSampler, DrawnVectors
from distspectral.training.draws import EdgeDraws
from distspectral.training.growth import N_JUDGED, GrowingSampler
from distspectral.training.last_layer import LastLayer, n_wanted
from distspectral.training.loop import Trainer
from distspectral.training.sampling import EdgeSampler, InBatchSampler
from distspectral.training.settings import TrainSettings

MOST_GROWTH = 4
"""Of batches that hide much, by default: larger ones take longer than they save."""


class SpectralTrainConfig(TrainConfig):
    """Training of the eigenfunctions, or of a metric (YAML section ``train``)."""

    inputs: Literal["auto"] | tuple[Space, ...] = Field(
        "auto",
        min_length=1,
        description="what the network sees of a row, side by side: vector, code, siamese; auto = all that was made, "
        "for the network should see the space in which the graph is smooth",
    )
    max_growth: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="how many times larger batches of edges may become in the cool-down, where small ones hide too "
        "much of the graph; auto = 4, and 1 where distillation follows",
    )


class StartConfig(SpectralTrainConfig):
    """Likewise, of a training that is a start, for a polish and a distillation follow."""

    most_steps: ClassVar[int] = 600
    least_steps: ClassVar[int] = 150


class SpectralSettings(TrainSettings):
    """All that decides the trained eigenfunctions besides the data."""

    train: SpectralTrainConfig = SpectralTrainConfig()

    network: NetworkConfig = NetworkConfig()
    spectral: SpectralConfig = SpectralConfig()
    orthonorm: OrthonormConfig = OrthonormConfig()
    affinity: AffinityConfig = AffinityConfig()
    n_neighbors: PositiveInt = Field(15, description="of the graph; used here by affinity.scope = batch only")
    n_components: PositiveInt = Field(description="eigenfunctions kept, the constant one included")

    @property
    def n_functions(self) -> int:
        """Functions trained: those kept and the oversampling."""
        return self.spectral.n_functions(self.n_components)

    def trainer(self, vectors: Vectors, graph: Graph | None = None) -> Trainer[SpectralModel, EdgeBatch]:
        """Return the trainer of the eigenfunctions of ``graph``; see :meth:`TrainSettings.trainer`."""
        assert graph is not None, "the spectral objective needs a graph"
        model = build_model(vectors.dim, self)
        model.network.perceptron.standardize_by(vectors.mean, vectors.scale)
        model.to(torch_device(self.train.device))
        objective = SpectralObjective(self.spectral, model.orthonormal, self.n_components)
        sampler, train, n_rows = build_sampler(vectors, graph, self), self.train, vectors.n_rows
        finish: LastLayer | None = None
        if not self.is_start:
            n_steps, n_edges = train.steps(n_rows), n_rows * graph.n_neighbors
            finish = LastLayer(model, objective, sampler, train.batch_size, n_steps, n_rows, n_edges)
        return Trainer(model, model.network, objective, sampler, train, n_rows, self.max_growth, finish)

    def draws(self, n_rows: int) -> EdgeDraws | None:
        """Return the edges of all batches; see :meth:`TrainSettings.draws`.

        None where rows are drawn beside edges, or edges are made of the rows of a batch.
        """
        if self.spectral.laplacian == "unnormalized" or self.affinity.scope == "batch":
            return None
        return EdgeDraws(n_rows, self.train.batch_size, self.train.steps(n_rows), self.seed)

    @property
    def max_growth(self) -> int:
        """How many times larger batches may become."""
        if self.train.max_growth == "auto":
            return 1 if self.is_start else MOST_GROWTH
        return self.train.max_growth

    @property
    def is_start(self) -> bool:
        """Whether a polish and a distillation follow, so that the last layer need not be solved."""
        return isinstance(self.train, StartConfig)

    def n_finishing(self, n_rows: int) -> int:
        """Return how many edges the last layer is solved and judged by."""
        if self.is_start:
            return 0
        n_edges = n_rows * self.n_neighbors
        return n_wanted(self.network.hidden[-1], n_edges) + N_JUDGED * self.train.batch_size

    @property
    def shape(self) -> dict[str, Any]:
        """Functions, those kept, and the width of the hidden layers."""
        return {
            "n_functions": self.n_functions,
            "n_components": self.n_components,
            "hidden": list(self.network.hidden),
        }

    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return the network's shape."""
        return {"dim": vectors.dim, **self.shape}


def build_model(dim: int, settings: SpectralSettings) -> SpectralModel:
    """Return the untrained model for rows of ``dim`` features, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = SpectralNetwork(dim, settings.n_functions, settings.network.hidden)
    return SpectralModel(network, OrthonormalLayer(settings.n_functions, settings.orthonorm))


def build_sampler(vectors: Vectors, graph: Graph, settings: SpectralSettings) -> GrowingSampler:
    """Return this rank's sampler for ``affinity.scope``."""
    train, affinity = settings.train, settings.affinity
    if isinstance(vectors, DrawnVectors):
        return DrawnEdgeSampler(vectors, train.steps(vectors.n_rows))
    if affinity.scope == "batch":
        return InBatchSampler(
            vectors,
            batch_size=train.batch_size,
            n_neighbors=settings.n_neighbors,
            kind=affinity.kind,
            scale_neighbor=affinity.scale_neighbor,
            laplacian=settings.spectral.laplacian,
            seed=settings.seed,
        )
    return EdgeSampler(
        vectors, graph, batch_size=train.batch_size, laplacian=settings.spectral.laplacian, seed=settings.seed
    )
