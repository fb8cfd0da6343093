"""What the config of a spectral run says, and the numbers by which ``representation: auto`` decides."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distspectral.clustering.config import ClusterConfig
from distspectral.embedding.pca import PcaConfig
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.objectives.spectral import SpectralConfig
from distspectral.recipes.recipe import Sections
from distspectral.training.autoencoder import AutoencoderConfig
from distspectral.training.distill import DistillConfig
from distspectral.training.map import MapConfig
from distspectral.training.siamese import SiameseConfig
from distspectral.training.spectral import SpectralTrainConfig

Representation = Literal["input", "code", "pca", "auto"]

ENOUGH_VARIANCE = 0.7
"""Share of the variance, of rows that the autoencoder never saw, above which ``auto`` takes the codes.

Codes that lose much of what tells rows apart lose neighbourhoods too. They keep .81 of MNIST's variance and lift ACC.
They keep .66 of spoken letters, .53 of sentence embeddings and a third of tf-idf text, and lower it. Conductance and
stability of the clusters were tried first: both prefer codes always, for neighbourhoods in ten dimensions are tight
whatever they mean."""

CODED_ROWS = 10_000
"""Rows from which ``auto`` makes codes: an autoencoder learns from rows, and few teach it too little.

10,000 rows of MNIST reach .95 ACC among their codes and .83 as they are. On seven sets of fewer rows codes gave .04
less on average, on COIL-20 .10. No number that we tried tells without labels which of two sets wants codes."""

WIDEST_CODED = 1 << 15
"""Features of a row beyond which ``auto`` makes no codes. Rows so wide are thin, such as counts of words, and an
autoencoder rebuilds all of a row: at 100,000 features its last layer alone takes 3.2 GB with Adam's moments."""


class SpectralSections(Sections):
    """What a config says of a spectral run."""

    representation: Representation = Field(
        "auto",
        description="what neighbours are searched in: input = the vectors; code = codes of an autoencoder; pca = their "
        "first principal components; auto = components where a trial on sampled rows finds that neighbours among them "
        f"tell clearly more of a row; else codes where they keep at least {ENOUGH_VARIANCE:.0%} of the variance of "
        f"rows that the autoencoder never saw, there are {CODED_ROWS:,} rows, and rows have at most "
        f"{WIDEST_CODED:,} features; else the vectors",
    )
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    pca: PcaConfig = PcaConfig()
    graph: GraphConfig = GraphConfig()
    affinity: AffinityConfig = AffinityConfig()
    siamese: SiameseConfig = SiameseConfig()
    spectral: SpectralConfig = SpectralConfig()
    train: SpectralTrainConfig = SpectralTrainConfig()
    distill: DistillConfig = DistillConfig()
    cluster: ClusterConfig = ClusterConfig()
    map: MapConfig = MapConfig()
