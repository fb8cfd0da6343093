"""What every recipe answers, whatever the kind of run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field

from distspectral.errors import ConfigError
from distspectral.frozen import FrozenModel, Seed
from distspectral.graph.trial import Trial
from distspectral.models.encoded import Space
from distspectral.models.networks import NetworkConfig
from distspectral.models.orthonorm_layer import OrthonormConfig
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.filesystems import absolute, join
from distspectral.training.settings import TrainSettings


class Sections(FrozenModel):
    """What the config of any run says that decides what is learned."""

    seed: Seed = Field(0, description="of every random choice")
    start_from: str | None = Field(
        None,
        description="directory or URI of a finished run of the same settings on other rows, say before more arrived: "
        "every training begins with its weights, and clusters that hold the same rows keep their numbers",
    )
    network: NetworkConfig = NetworkConfig()
    orthonorm: OrthonormConfig = OrthonormConfig()


class Recipe(Sections, ABC):
    """A kind of run on rows of one width; frozen, cheap to make, reads nothing.

    Attributes:
        dim: D, features of a row.
        n_rows: N, None where it is not known: as many as anything needs.
    """

    dim: int
    n_rows: float | None = None

    kind: ClassVar[str]
    """As ``objective`` of a config calls it."""
    passage: ClassVar[tuple[str, ...]]
    """Stages that rows other than those trained on pass, in order."""
    budget: ClassVar[Mapping[str, Any]] = {}
    """Defaults of the section ``train`` where they differ from those of its model."""

    @classmethod
    def of(cls, sections: Any, dim: int, n_rows: float | None = None) -> Self:
        """Return the recipe whose sections are attributes of ``sections``, such as a ``RunConfig``."""
        names = [name for name in cls.model_fields if hasattr(sections, name)]
        return cls(dim=dim, n_rows=n_rows, **{name: getattr(sections, name) for name in names})

    @property
    @abstractmethod
    def chain(self) -> tuple[str, ...]:
        """Names of the stages, in order."""

    @property
    @abstractmethod
    def seen(self) -> Mapping[Space, str]:
        """What the trained network sees of a row, side by side: by space, the stage that writes it."""

    @property
    def may_see(self) -> tuple[str, ...]:
        """Stages whose rows the trained network might see; all of them decide its fingerprint."""
        return tuple(self.seen.values())

    @property
    def searched(self) -> str:
        """Stage whose rows stand for the data: neighbours are searched among them."""
        return "pack"

    @property
    def may_search(self) -> tuple[str, ...]:
        """Stages of which :attr:`searched` may be one."""
        return (self.searched,)

    @property
    def searches(self) -> Mapping[str, str]:
        """By stage that searches neighbours, the stage among whose rows."""
        return {}

    @property
    def learned_by(self) -> str:
        """Stage that trains the network whose outputs are the embedding, the last one that does."""
        return "train"

    @property
    def encoders(self) -> Mapping[str, str]:
        """What a raw row passes before the trained network: argument of ``EncodedNetwork``, stage that trains it."""
        return {}

    @property
    @abstractmethod
    def embedded_graph(self) -> str | None:
        """Stage that writes the graph whose functions are learned, None where there is none."""

    @property
    @abstractmethod
    def trainings(self) -> Mapping[str, TrainSettings]:
        """Settings by stage that trains."""

    @property
    @abstractmethod
    def learns_from(self) -> Mapping[str, tuple[tuple[str, ...], str | None]]:
        """By stage that trains: stages whose rows its network sees side by side; the graph's, None without one."""

    @property
    @abstractmethod
    def layers(self) -> Mapping[str, tuple[int, ...]]:
        """Widths of each network from input to output, by stage that trains it; an autoencoder's up to its codes.

        A network that is a module of the user's own is left out.
        """

    @property
    @abstractmethod
    def learned(self) -> str:
        """What the run learns, in words and numbers."""

    def knowing(self, kept_variance: float | None = None, trial: Trial | None = None) -> Self:
        """Return the recipe once it is known what a trial decided and how much of the rows' variance codes keep."""
        del kept_variance, trial
        return self

    @abstractmethod
    def check(self, n_rows: int, has_labels: bool) -> None:
        """Refuse what is bound to fail on so many rows, before anything runs.

        Raises:
            ConfigError: two values contradict each other.
            TooFewRowsError, TooFewClassesError, TooManyClustersError: the rows cannot carry what is asked.
        """

    def import_trunk(self) -> None:
        """Make the network once where it is a module of the user's own, whose code runs.

        Raises:
            ConfigError: it cannot be made, or does not fit the rows.
        """

    def check_workers(self, n_workers: int) -> None:
        """Refuse workers without a row, and batches that hold less than one item for each worker.

        Raises:
            ConfigError: just that.
        """
        if self.n_rows is not None and n_workers > self.n_rows:
            raise ConfigError(
                f"ray.workers: is {n_workers}, but there are only {self.n_rows:,.0f} rows; every worker needs one",
                ["ray.workers"],
            )
        for stage, settings in self.trainings.items():
            least = settings.train.smallest_share * n_workers
            if settings.train.batch_size < least:
                key = f"{stage}.batch_size"
                raise ConfigError(
                    f"{key}: is {settings.train.batch_size} per step for {n_workers} workers (ray.workers); every "
                    f"worker needs at least {settings.train.smallest_share}",
                    [key, "ray.workers"],
                )

    def check_batches(self) -> None:
        """Refuse to draw batches before a training whose objective makes them as it goes.

        Raises:
            ConfigError: just that.
        """
        for stage, settings in self.trainings.items():
            if settings.train.batches == "drawn" and settings.draws(round(self.n_rows or 1)) is None:
                key = f"{stage}.batches"
                raise ConfigError(
                    f"{key}: is drawn, but batches of labelled rows, of edges made inside a batch (affinity.scope) and "
                    "of the unnormalized Laplacian (spectral.laplacian) are not drawn before training; set it to auto",
                    [key],
                )

    @property
    def starts(self) -> Mapping[str, str]:
        """Where the weights lie that stages begin with, by stage; of those that begin with some."""
        begun = {stage: settings.start_from for stage, settings in self.trainings.items()}
        return {stage: uri for stage, uri in begun.items() if uri is not None}

    @property
    def follows(self) -> str | None:
        """Root of the run whose clusters this one's are numbered by; None where there is none."""
        return None

    def given(self) -> Mapping[str, str]:
        """Return digests of files that stages read beside the source, by stage.

        Raises:
            ConfigError: one does not exist.
        """
        return {}

    def check_start(self) -> None:
        """Refuse to start from a run that is not finished or whose networks have another shape.

        Raises:
            ArtifactError: a training of that run is not finished.
            ConfigError: its weights do not fit.
        """
        for stage, uri in self.starts.items():
            found = Artifact(uri).manifest().properties
            width = {"dim": self.dim} if self._sees_rows_alone(stage) else {}
            for name, value in (self._shape(stage) | width).items():
                if found.get(name) != value:
                    raise ConfigError(
                        f"start_from: {uri} has {name} = {found.get(name)}, this run {value}; weights "
                        "fit only the same settings, so take that run's config and change name, root and data",
                        ["start_from"],
                    )

    def _shape(self, stage: str) -> dict[str, Any]:
        """Return what must be equal for the weights of another run to fit a stage, beside the width of the rows."""
        return self.trainings[stage].shape

    def _sees_rows_alone(self, stage: str) -> bool:
        """Whether a training sees the rows as they are, so that their width must fit."""
        del stage
        return True

    def _first_weights(self, folder: str) -> str | None:
        """Return where a training's artifact lies in the run to start from, or None; a local path is absolute."""
        return None if self.start_from is None else join(absolute(self.start_from), folder)
