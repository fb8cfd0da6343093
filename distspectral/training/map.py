"""The map, from its settings to a trainer over edges and random rows, the functions' network being finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distspectral.graph.store import Graph
from distspectral.models.encoded import EncodedNetwork
from distspectral.models.map_network import N_ANCHORS, MapNetwork, MapOfFunctions, by_other_functions
from distspectral.models.networks import Perceptron, torch_device
from distspectral.models.state import restored
from distspectral.objectives.batches import MapBatch
from distspectral.objectives.map import MapObjective
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.drawn import DrawnMapSampler, DrawnVectors
from distspectral.training.draws import MapDraws
from distspectral.training.loop import Sampler, Trainer
from distspectral.training.map_sampling import MapSampler
from distspectral.training.settings import TrainSettings
from distspectral.training.step import unwrapped

SAMPLED_STEPS = 8
"""Whose random rows tell an earlier run's functions by this run's."""


class MapConfig(TrainConfig):
    """A map of the rows in two coordinates to look at, and the training of its network (YAML section ``map``)."""

    section: ClassVar[str] = "map"
    most_steps: ClassVar[int] = 1200

    batch_size: PositiveInt = Field(512, description="edges per step, all workers together")
    learning_rate: PositiveFloat = Field(4e-3, description="of Adam, between warm-up and cool-down")
    enabled: bool = Field(
        True, description="whether one is drawn; nothing else needs it, so runs that nobody looks at save a training"
    )
    hidden: tuple[PositiveInt, ...] = Field((512, 256), min_length=1, description="units of each hidden layer")
    n_negatives: PositiveInt = Field(
        256, description="random rows that the rows of a step are repelled from, the same for all of them"
    )


class MapSettings(TrainSettings):
    """All that decides the map besides the data."""

    train: MapConfig = MapConfig()
    model: str | None = None
    """URI of the finished artifact ``model``, whose functions the network sees; known once the stages are."""
    start_model: str | None = None
    """Likewise, of the run to start from, whose functions its map saw."""

    def upon(self, artifacts: Mapping[str, Artifact]) -> Self:
        """Return the settings, knowing the calibrated network."""
        return self.model_copy(update={"model": artifacts["calibrate"].uri})

    def trainer(self, vectors: Vectors, graph: Graph | None = None) -> Trainer[MapNetwork, MapBatch]:
        """Return the trainer on the edges of ``graph``; see :meth:`TrainSettings.trainer`."""
        assert graph is not None, "the map needs a graph"
        assert self.model is not None, "the stage knows the calibrated network"
        return self.trainer_upon(_functions(self.model), vectors, graph)

    def trainer_upon(self, functions: Perceptron, vectors: Vectors, graph: Graph) -> Trainer[MapNetwork, MapBatch]:
        """Return the trainer, given the calibrated network: from ``vectors`` to functions; it is not changed."""
        train, device = self.train, torch_device(self.train.device)
        model = build_map(vectors.dim, len(functions.head.weight), self)
        model.standardize_by(vectors.mean, vectors.scale)
        network = MapOfFunctions(Perceptron.from_state(functions.state_dict()), model).to(device)
        sampler = build_map_sampler(vectors, graph, self)
        return Trainer(model, network, MapObjective(model), sampler, train, vectors.n_rows)

    @torch.no_grad()
    def first_weights(
        self, weights: Mapping[str, Tensor], trainer: Trainer[Any, Any], moved: bool
    ) -> Mapping[str, Tensor]:
        """Return the earlier map's weights by this run's functions; see :meth:`TrainSettings.first_weights`.

        Functions of another training differ by sign, order and rotation. The earlier ones are combined from these by
        least squares over random rows, the same on all ranks. Communication: none.
        """
        assert self.start_model is not None, "named together with the weights"
        network = unwrapped(trainer.network)
        assert isinstance(network, MapOfFunctions), network
        functions = Perceptron.from_state({name: one.cpu() for name, one in network.functions.state_dict().items()})
        earlier = _functions(self.start_model)
        if moved:
            earlier.standardize_by(functions.input_mean, functions.input_scale)
        samples = []
        for step in range(min(SAMPLED_STEPS, trainer.schedule.max_steps)):
            batch = trainer.sampler.batch(step)
            samples.append(batch.vectors.index_select(0, batch.negatives))
        own, before = (torch.cat([one(rows) for rows in samples]).double() for one in (functions, earlier))
        return by_other_functions(weights, torch.linalg.lstsq(own, before, driver="gelsd").solution)

    def draws(self, n_rows: int) -> MapDraws:
        """Return the edges and random rows of all batches; see :meth:`TrainSettings.draws`."""
        train, n_negatives = self.train, min(self.train.n_negatives, n_rows)
        return MapDraws(n_rows, train.batch_size, train.steps(n_rows), self.seed, n_negatives)

    @property
    def shape(self) -> dict[str, Any]:
        """Width of the hidden layers, and of the softmax behind them."""
        return {"hidden": list(self.train.hidden), "n_anchors": N_ANCHORS}

    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return the network's shape."""
        return {"dim": vectors.dim, **self.shape}


def _functions(model: str) -> Perceptron:
    """Return the calibrated network of a finished artifact ``model``."""
    return restored(Artifact(model), "model.pt", EncodedNetwork.from_state).perceptron


def build_map(dim: int, n_functions: int, settings: MapSettings) -> MapNetwork:
    """Return the untrained network for rows of ``dim`` features and so many functions, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return MapNetwork.untrained(dim, n_functions, settings.train.hidden)


def build_map_sampler(vectors: Vectors, graph: Graph, settings: MapSettings) -> Sampler[MapBatch]:
    """Return this rank's sampler."""
    train = settings.train
    if isinstance(vectors, DrawnVectors):
        return DrawnMapSampler(vectors, train.batch_size)
    return MapSampler(vectors, graph, batch_size=train.batch_size, n_negatives=train.n_negatives, seed=settings.seed)
