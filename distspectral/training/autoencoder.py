"""The autoencoder, from its settings to a trainer over rows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from distspectral.models.autoencoder import Autoencoder
from distspectral.models.networks import torch_device
from distspectral.objectives.autoencoder import ReconstructionObjective
from distspectral.objectives.batches import ReconstructionBatch
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.drawn import DrawnRowSampler, DrawnVectors
from distspectral.training.draws import RowDraws
from distspectral.training.loop import Trainer
from distspectral.training.row_sampling import RowSampler
from distspectral.training.settings import TrainSettings

NARROWEST, WIDEST, DEPTH = 128, 512, 3
"""Of the encoder's hidden layers. Measured on MNIST: depth counts and width does not."""


class AutoencoderConfig(TrainConfig):
    """Shape and training of the autoencoder (YAML section ``autoencoder``)."""

    section: ClassVar[str] = "autoencoder"
    most_steps: ClassVar[int] = 2000
    useful_share: ClassVar[int] = 256  # wide layers: two workers of 128 rows made .90 of one's steps, of 256 rows 1.18

    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | Literal["auto"] = Field(
        "auto",
        description="units of the encoder's hidden layers, which the decoder mirrors; auto = three layers as wide as "
        f"the rows, at least {NARROWEST} and at most {WIDEST}",
    )
    n_components: PositiveInt = Field(24, description="width of the codes")
    corruption: float = Field(
        0.0, ge=0, lt=1, description="share of a row's features blanked out before encoding; the whole row is rebuilt"
    )
    batch_size: PositiveInt = Field(256, description="rows per step, all workers together")
    learning_rate: PositiveFloat = Field(2e-3, description="of Adam, between warm-up and cool-down")

    def widths(self, dim: int) -> tuple[int, ...]:
        """Return the units of the encoder's hidden layers for rows of ``dim`` features."""
        return (min(max(dim, NARROWEST), WIDEST),) * DEPTH if self.hidden == "auto" else self.hidden


class AutoencoderSettings(TrainSettings):
    """All that decides the codes besides the data."""

    train: AutoencoderConfig = AutoencoderConfig()

    def trainer(self, vectors: Vectors, graph: object = None) -> Trainer[Autoencoder, ReconstructionBatch]:
        """Return the trainer on the rows of ``vectors``; see :meth:`TrainSettings.trainer`."""
        train, model = self.train, build_autoencoder(vectors.dim, self)
        model.encoder.standardize_by(vectors.mean, vectors.scale)
        model.to(torch_device(train.device))
        sampler_class = DrawnRowSampler if isinstance(vectors, DrawnVectors) else RowSampler
        sampler = sampler_class(vectors, batch_size=train.batch_size, corruption=train.corruption, seed=self.seed)
        return Trainer(model, model, ReconstructionObjective(model), sampler, train, vectors.n_rows)

    def draws(self, n_rows: int) -> RowDraws:
        """Return the rows of all batches; see :meth:`TrainSettings.draws`."""
        return RowDraws(n_rows, self.train.batch_size, self.train.steps(n_rows), self.seed)

    @property
    def shape(self) -> dict[str, Any]:
        """Width of the codes and of the hidden layers."""
        hidden = self.train.hidden
        return {"n_components": self.train.n_components, "hidden": hidden if hidden == "auto" else list(hidden)}

    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return the autoencoder's shape."""
        return {"dim": vectors.dim, **self.shape}


def build_autoencoder(dim: int, settings: AutoencoderSettings) -> Autoencoder:
    """Return the untrained autoencoder for rows of ``dim`` features, the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Autoencoder(dim, settings.train.n_components, settings.train.widths(dim))
