"""One run as one frozen model: each section is the config model that its package owns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from distspectral.clusters import ClusterConfig
from distspectral.config.ray import MlflowConfig, RayConfig
from distspectral.graph.config import AffinityConfig, GraphConfig
from distspectral.models.networks import NetworkConfig
from distspectral.models.orthonorm_layer import OrthonormConfig
from distspectral.objectives.dscl import DSCLConfig
from distspectral.objectives.spectral import SpectralConfig
from distspectral.recipes import RECIPES, Recipe, Representation
from distspectral.stages.embed import EmbedConfig
from distspectral.stages.evaluate import EvaluateConfig
from distspectral.stages.pack import PackConfig
from distspectral.storage.artifact.cache import StorageConfig
from distspectral.storage.source.dataset import SourceConfig
from distspectral.training.autoencoder import AutoencoderConfig
from distspectral.training.siamese import SiameseConfig
from distspectral.training.spectral import SpectralTrainConfig


class RunConfig(BaseModel):
    """Everything that ``distspectral run`` needs to know; YAML mirrors it key for key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run, in reports and job names")
    root: str = Field("", description="directory or URI of all artifacts; default runs/<name>")
    seed: NonNegativeInt = Field(0, description="of every random choice")
    objective: Literal["spectral", "dscl"] = Field(
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
    def _take_the_recipes_budget(cls, values: Any) -> Any:
        recipe = RECIPES.get(str(values.get("objective", "spectral"))) if isinstance(values, dict) else None
        if recipe is None or not recipe.budget or not isinstance(train := values.get("train") or {}, dict):
            return values
        return {**values, "train": {**recipe.budget, **train}}

    @model_validator(mode="before")
    @classmethod
    def _name_the_root(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("root") and "name" in values:
            return {**values, "root": f"runs/{values['name']}"}
        return values

    def recipe(self, dim: int) -> Recipe:
        """Return what this run consists of on rows of ``dim`` features."""
        return RECIPES[self.objective].of(self, dim)
