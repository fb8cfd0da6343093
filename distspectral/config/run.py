"""One run as one frozen model: each section is the config model that its package owns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from distspectral.clusters import ClusterConfig
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.models.networks import NetworkConfig
from distspectral.models.orthonorm_layer import OrthonormConfig
from distspectral.objectives.dscl import DSCLConfig
from distspectral.objectives.spectral import SpectralConfig, default_n_components
from distspectral.orchestration.config import MlflowConfig, RayConfig
from distspectral.stages.embed import EmbedConfig
from distspectral.stages.evaluate import EvaluateConfig
from distspectral.stages.pack import PackConfig
from distspectral.stages.plan import METRIC_CHAIN, Objective, Representation, Step, spectral_chain
from distspectral.storage.artifact.cache import StorageConfig
from distspectral.storage.filesystems import join
from distspectral.storage.source.dataset import SourceConfig
from distspectral.training.autoencoder import AutoencoderConfig, AutoencoderSettings
from distspectral.training.dscl import DSCLSettings
from distspectral.training.settings import TrainSettings
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings, SpectralTrainConfig


class RunConfig(BaseModel):
    """Everything that ``distspectral run`` needs to know; YAML mirrors it key for key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run, in reports and job names")
    root: str = Field("", description="directory or URI of all artifacts; default runs/<name>")
    seed: NonNegativeInt = Field(0, description="of every random choice")
    objective: Objective = Field(
        "spectral",
        description="what is learned, which decides the stages: spectral = eigenfunctions of a neighbour graph and "
        "clusters, no labels; dscl = a metric from labels, for classes never seen",
    )
    start_from: str | None = Field(
        None,
        description="directory or URI of a finished run of the same settings on other rows, say before more arrived: "
        "every training begins with its weights",
    )
    data: SourceConfig
    pack: PackConfig = PackConfig()
    representation: Representation = Field(
        "auto",
        description="what neighbours are searched in: input = the vectors; code = codes of an autoencoder; auto = "
        "codes where they keep at least half of the variance of rows that the autoencoder never saw",
    )
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    graph: GraphConfig = GraphConfig()
    affinity: AffinityConfig = AffinityConfig()
    siamese: SiameseConfig = SiameseConfig()
    network: NetworkConfig = NetworkConfig()
    spectral: SpectralConfig = SpectralConfig()
    orthonorm: OrthonormConfig = OrthonormConfig()
    train: SpectralTrainConfig = SpectralTrainConfig()
    cluster: ClusterConfig = ClusterConfig()
    embed: EmbedConfig = EmbedConfig()
    dscl: DSCLConfig = DSCLConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    ray: RayConfig = RayConfig()
    storage: StorageConfig = StorageConfig()
    mlflow: MlflowConfig | None = Field(None, description="{} = log the run to MLflow; null = do not")

    @model_validator(mode="before")
    @classmethod
    def _name_the_root(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("root") and "name" in values:
            return {**values, "root": f"runs/{values['name']}"}
        return values

    @property
    def n_components(self) -> int:
        """Eigenfunctions kept, the constant one included."""
        return self.spectral.n_components or default_n_components(self.cluster.n_clusters)

    def chain(self, dim: int) -> Mapping[str, Step]:
        """Return the stages of this run on rows of ``dim`` features, in order.

        Rows no wider than their codes would be are clustered as they are, unless codes are asked for.
        """
        if self.objective == "dscl":
            return METRIC_CHAIN
        too_narrow = self.representation == "auto" and dim <= self.autoencoder.n_components
        representation = "input" if too_narrow else self.representation
        return spectral_chain(representation, self.affinity.space, self.siamese.use)

    def first_weights(self, directory: str) -> str | None:
        """Return where a training's artifact lies in the run to start from, or None; a local path is absolute."""
        if self.start_from is None:
            return None
        place = self.start_from if "://" in self.start_from else str(Path(self.start_from).expanduser().absolute())
        return join(place, directory)

    @property
    def autoencoder_settings(self) -> AutoencoderSettings:
        """What training of the autoencoder takes of this config."""
        start = self.first_weights("autoencoder")
        return AutoencoderSettings(train=self.autoencoder, seed=self.seed, start_from=start)

    @property
    def siamese_settings(self) -> SiameseSettings:
        """What training of the Siamese network takes of this config."""
        return SiameseSettings(train=self.siamese, seed=self.seed, start_from=self.first_weights("siamese"))

    @property
    def train_settings(self) -> TrainSettings:
        """What training takes of this config."""
        return self.dscl_settings if self.objective == "dscl" else self.spectral_settings

    @property
    def spectral_settings(self) -> SpectralSettings:
        """What training and calibration of eigenfunctions take of this config."""
        return SpectralSettings(
            network=self.network,
            spectral=self.spectral,
            orthonorm=self.orthonorm,
            train=self.train,
            affinity=self.affinity,
            n_neighbors=self.graph.n_neighbors,
            n_components=self.n_components,
            seed=self.seed,
            start_from=self.first_weights("training"),
        )

    @property
    def dscl_settings(self) -> DSCLSettings:
        """What training of a metric takes of this config."""
        return DSCLSettings(
            network=self.network,
            dscl=self.dscl,
            orthonorm=self.orthonorm,
            train=self.train,
            seed=self.seed,
            start_from=self.first_weights("training"),
        )
