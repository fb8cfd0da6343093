"""From settings and data to a trainer: the same call for one process, a gloo group and Ray Train's workers."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from distspectral.graph.config import AffinityConfig
from distspectral.graph.store import Graph
from distspectral.models.networks import NetworkConfig, SpectralNetwork, torch_device
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig, SpectralModel
from distspectral.objectives.spectral import SpectralConfig, SpectralObjective
from distspectral.storage.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.loop import Sampler, Trainer
from distspectral.training.sampling import EdgeSampler, InBatchSampler


class TrainSettings(BaseModel):
    """All that decides a trained model besides the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig = NetworkConfig()
    spectral: SpectralConfig = SpectralConfig()
    orthonorm: OrthonormConfig = OrthonormConfig()
    train: TrainConfig = TrainConfig()
    affinity: AffinityConfig = AffinityConfig()
    n_neighbors: PositiveInt = Field(15, description="of the graph; used here by affinity.scope = batch only")
    n_components: PositiveInt = Field(description="eigenfunctions kept, the constant one included")
    seed: int = 0

    @property
    def n_functions(self) -> int:
        """Functions trained: those kept and the oversampling."""
        return self.spectral.n_functions(self.n_components)


def build_model(dim: int, settings: TrainSettings) -> SpectralModel:
    """Return the untrained model for rows of ``dim`` features, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = SpectralNetwork(dim, settings.n_functions, settings.network.hidden)
    return SpectralModel(network, OrthonormalLayer(settings.n_functions, settings.orthonorm))


def build_sampler(vectors: Vectors, graph: Graph, settings: TrainSettings) -> Sampler:
    """Return this rank's sampler for ``affinity.scope``."""
    train, affinity = settings.train, settings.affinity
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


def build_trainer(vectors: Vectors, graph: Graph, settings: TrainSettings) -> Trainer:
    """Return a trainer at step 0 on this rank's device.

    Communication: that of the sampler's construction, and DDP's broadcast of the initial weights.
    """
    model = build_model(vectors.dim, settings)
    model.network.perceptron.standardize_by(torch.from_numpy(np.asarray(vectors.mean)), vectors.scale)
    model.to(torch_device(settings.train.device))
    objective = SpectralObjective(settings.spectral, model.orthonormal)
    sampler = build_sampler(vectors, graph, settings)
    return Trainer(model, objective, sampler, settings.train, n_kept=settings.n_components)
