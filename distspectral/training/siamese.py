"""The Siamese network, from its settings to a trainer over pairs of rows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from distspectral.graph.store import Graph
from distspectral.models.networks import Perceptron, torch_device
from distspectral.objectives.batches import PairBatch
from distspectral.objectives.siamese import SiameseObjective
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.drawn import DrawnPairSampler, DrawnVectors
from distspectral.training.draws import PairDraws
from distspectral.training.loop import Sampler, Trainer
from distspectral.training.row_sampling import PairSampler
from distspectral.training.settings import TrainSettings

SiameseUse = Literal["reweight", "rebuild"]


class SiameseConfig(TrainConfig):
    """Shape and training of the Siamese network, and what its distances are for (YAML section ``siamese``)."""

    most_steps: ClassVar[int] = 1500
    smallest_share: ClassVar[int] = 2  # a pair of neighbours and a negative one
    section: ClassVar[str] = "siamese"

    use: SiameseUse = Field(
        "reweight",
        description="reweight: the edges that are there get weights from Siamese distances; rebuild: neighbours are "
        "searched again in the Siamese space, as in the paper",
    )
    hidden: tuple[PositiveInt, ...] = Field((256, 256), min_length=1, description="units of each hidden layer")
    n_components: PositiveInt = Field(10, description="width of the Siamese space")
    n_positives: PositiveInt = Field(2, description="a row's partner is one of so many nearest neighbours")
    margin: PositiveFloat = Field(1.0, description="distance beyond which a negative pair costs nothing")


class SiameseSettings(TrainSettings):
    """All that decides the Siamese space besides the data."""

    train: SiameseConfig = SiameseConfig()

    def trainer(self, vectors: Vectors, graph: Graph | None = None) -> Trainer[Perceptron, PairBatch]:
        """Return the trainer on the edges of ``graph``; see :meth:`TrainSettings.trainer`."""
        assert graph is not None, "the Siamese objective needs a graph"
        train, model = self.train, build_siamese(vectors.dim, self)
        model.standardize_by(vectors.mean, vectors.scale)
        model.to(torch_device(train.device))
        sampler: Sampler[PairBatch]
        if isinstance(vectors, DrawnVectors):
            sampler = DrawnPairSampler(vectors, train.n_positives)
        else:
            sampler = PairSampler(
                vectors, graph, batch_size=train.batch_size, n_positives=train.n_positives, seed=self.seed
            )
        return Trainer(model, model, SiameseObjective(model, train.margin), sampler, train, vectors.n_rows)

    def draws(self, n_rows: int) -> PairDraws:
        """Return the pairs of all batches; see :meth:`TrainSettings.draws`."""
        train = self.train
        return PairDraws(n_rows, train.batch_size, train.steps(n_rows), self.seed, train.n_positives)

    @property
    def shape(self) -> dict[str, Any]:
        """Width of the features and of the hidden layers."""
        return {"n_components": self.train.n_components, "hidden": list(self.train.hidden)}

    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return the network's shape."""
        return {"dim": vectors.dim, **self.shape}


def build_siamese(dim: int, settings: SiameseSettings) -> Perceptron:
    """Return the untrained network for rows of ``dim`` features, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Perceptron(dim, settings.train.n_components, settings.train.hidden)
