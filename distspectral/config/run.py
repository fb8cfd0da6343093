"""One run as one frozen model: each section is the config model that its package owns."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator

from distspectral.config.ray import MlflowConfig, RayConfig
from distspectral.graph.config import AffinityConfig
from distspectral.recipes import RECIPES, MetricSections, Objective, Recipe, SpectralSections
from distspectral.stages.embed import EmbedConfig
from distspectral.stages.evaluate import EvaluateConfig
from distspectral.stages.exemplars import ExemplarsConfig
from distspectral.stages.pack import PackConfig
from distspectral.storage.artifact.cache import StorageConfig
from distspectral.storage.source.dataset import SourceConfig


class Head(BaseModel):
    """What a run is called, where it goes, what it learns and from what."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run, in reports and job names")
    root: str = Field("", description="directory or URI of all artifacts; default runs/<name>")
    objective: Objective = Field(
        "spectral",
        description="what is learned, which decides the stages: spectral = eigenfunctions of a neighbour graph and "
        "clusters, no labels; dscl = a metric from labels, for classes never seen",
    )
    data: SourceConfig


class RunConfig(SpectralSections, MetricSections, Head):
    """Everything that ``distspectral run`` needs to know, the sections of every recipe; YAML mirrors it key for key."""

    pack: PackConfig = PackConfig()
    embed: EmbedConfig = EmbedConfig()
    exemplars: ExemplarsConfig = ExemplarsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    ray: RayConfig = RayConfig()
    storage: StorageConfig = StorageConfig()
    mlflow: MlflowConfig | None = Field(None, description="{} = log the run to MLflow; null = do not")

    @model_validator(mode="before")
    @classmethod
    def _take_the_recipes_budget(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(train := values.get("train") or {}, dict):
            return values
        budgets = [recipe.budget for kind, recipe in RECIPES.items() if kind == values.get("objective", "spectral")]
        return {**values, "train": {**budgets[0], **train}} if budgets and budgets[0] else values

    @model_validator(mode="before")
    @classmethod
    def _scale_by_a_neighbor_there_is(cls, values: Any) -> Any:
        """Take no farther neighbour than there are for the scale that nobody chose, as the estimator does."""
        if not isinstance(values, dict):
            return values
        graph, affinity = values.get("graph") or {}, values.get("affinity") or {}
        if not isinstance(graph, dict) or not isinstance(affinity, dict) or "scale_neighbor" in affinity:
            return values
        n_neighbors, usual = graph.get("n_neighbors"), AffinityConfig().scale_neighbor
        if not isinstance(n_neighbors, int) or not 0 < n_neighbors < usual:
            return values
        return {**values, "affinity": {**affinity, "scale_neighbor": n_neighbors}}

    @model_validator(mode="before")
    @classmethod
    def _name_the_root(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("root") and "name" in values:
            return {**values, "root": f"runs/{values['name']}"}
        return values

    def recipe(self, dim: int, n_rows: float | None = None) -> Recipe:
        """Return what this run consists of on so many rows of ``dim`` features; None: as many as anything needs."""
        return RECIPES[self.objective].of(self, dim, n_rows)

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """Return what stages are given: sections by name; for those that train, all settings of the training."""
        return {**{name: getattr(self, name) for name in type(self).model_fields}, **recipe.trainings}
