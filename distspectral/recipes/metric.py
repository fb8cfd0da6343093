"""A metric learned from labels, for classes never seen: what such a run consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from distspectral.errors import ConfigError, TooFewClassesError
from distspectral.models.encoded import Space
from distspectral.objectives.dscl import DSCLConfig
from distspectral.recipes.recipe import Recipe, Sections
from distspectral.training.config import TrainConfig
from distspectral.training.dscl import DSCLSettings

BUDGET: Mapping[str, Any] = {"batch_size": 512, "max_steps": 1000, "learning_rate": 3e-3, "cooldown": 0.4}
"""Of training: classes in a batch matter more than steps, and the loss bears a higher rate than eigenfunctions do."""


class MetricSections(Sections):
    """What a config says of a metric run, beside its training."""

    dscl: DSCLConfig = DSCLConfig()


class MetricRecipe(MetricSections, Recipe):
    """A run of Deep Spectral Clustering Learning."""

    train: TrainConfig = TrainConfig(**BUDGET)

    kind: ClassVar = "dscl"
    passage: ClassVar = ("pack", "embed")
    budget: ClassVar = BUDGET

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return ("pack", "train", "embed", "evaluate")

    @property
    def seen(self) -> dict[Space, str]:
        """The rows as they are."""
        return {"vector": "pack"}

    @property
    def embedded_graph(self) -> None:
        """None: labels take the place of a graph."""
        return

    @property
    def trainings(self) -> dict[str, DSCLSettings]:
        """Settings by stage that trains."""
        return {"train": self.metric}

    @property
    def learns_from(self) -> dict[str, tuple[tuple[str, ...], str | None]]:
        """What the training reads: labelled rows."""
        return {"train": (("pack",), None)}

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Widths of the network, where it is a perceptron."""
        perceptron = (self.dim, *self.network.hidden, self.most_components)
        return {"train": perceptron} if self.network.trunk is None else {}

    @property
    def most_components(self) -> int:
        """Width of the embedding; where labels decide, the greatest that it can have."""
        dscl = self.dscl
        return dscl.n_components or max(self.train.batch_size // dscl.rows_per_class, 1)

    @property
    def metric(self) -> DSCLSettings:
        """All that decides the metric besides the labelled rows."""
        return DSCLSettings(
            network=self.network,
            dscl=self.dscl,
            orthonorm=self.orthonorm,
            train=self.train,
            seed=self.seed,
            start_from=self._first_weights("training"),
        )

    @property
    def learned(self) -> str:
        """What the run learns."""
        if self.dscl.n_components is None:
            return f"a metric of as many components as a batch has classes, at most {self.most_components}"
        return f"a metric of {self.dscl.n_components} components"

    def check(self, n_rows: int, has_labels: bool) -> None:
        """Refuse what is bound to fail; see :meth:`Recipe.check`."""
        del n_rows
        dscl, batch_size = self.dscl, self.train.batch_size
        if not has_labels:
            raise ConfigError(
                "data.label_column: is not set, and objective dscl learns from labels; name their column",
                ["data.label_column"],
            )
        if getattr(self.train, "inputs", "auto") not in ("auto", ("vector",)):
            raise ConfigError(
                "train.inputs: is for objective spectral; a metric sees the vectors, so leave it out", ["train.inputs"]
            )
        if self.train.precision == "bfloat16" and dscl.loss == "projector":
            raise ConfigError(
                "train.precision: is bfloat16, but dscl.loss = projector tells independent columns from float32's "
                "rounding; leave it out",
                ["train.precision"],
            )
        if batch_size < 2 * dscl.rows_per_class:
            raise TooFewClassesError(
                f"train.batch_size: is {batch_size} rows for dscl.rows_per_class = {dscl.rows_per_class}; a batch "
                f"needs 2 classes, so at least {2 * dscl.rows_per_class} rows",
                ["train.batch_size", "dscl.rows_per_class"],
            )
        if dscl.loss == "projector" and (dscl.n_components or 1) >= batch_size:
            raise ConfigError(
                f"dscl.n_components: is {dscl.n_components} for batches of {batch_size} rows (train.batch_size); as "
                "many columns as rows span everything, so the loss is 0 whatever is learned: lower it, or raise the "
                "batch size",
                ["dscl.n_components", "train.batch_size"],
            )
        if self.network.trunk is not None:
            from distspectral.models.trunks import find_trunk

            find_trunk(self.network.trunk)

    def import_trunk(self) -> None:
        """Make the trunk, if there is one; see :meth:`Recipe.import_trunk`."""
        if self.network.trunk is not None:
            from distspectral.models.trunks import embedding_network

            embedding_network(self.dim, self.most_components, self.network)
