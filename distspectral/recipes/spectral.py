"""Eigenfunctions of a neighbour graph and clusters in them, no labels: what such a run consists of.

Edges are weighed by the distances that the search found, or by those of a Siamese network trained on the edges.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from distspectral.errors import ConfigError, TooFewRowsError, TooManyClustersError
from distspectral.graph.config import check as check_affinity
from distspectral.graph.given import fingerprint
from distspectral.models.encoded import Space
from distspectral.models.map_network import N_ANCHORS
from distspectral.objectives.spectral import SpectralConfig, default_n_components
from distspectral.recipes.spectral_spaces import SpectralSpaces
from distspectral.spectral.affinity import falls_with_distance
from distspectral.spectral.polish import can_polish
from distspectral.storage.filesystems import absolute
from distspectral.training.autoencoder import AutoencoderSettings
from distspectral.training.distill import DistillSettings
from distspectral.training.map import MapSettings
from distspectral.training.settings import TrainSettings
from distspectral.training.siamese import SiameseSettings
from distspectral.training.spectral import SpectralSettings, StartConfig


class SpectralRecipe(SpectralSpaces):
    """A spectral run."""

    kind: ClassVar = "spectral"
    passage: ClassVar = ("embed",)

    @classmethod
    def of(cls, sections: Any, dim: int, n_rows: float | None = None) -> Self:
        """Return the recipe of a run; of fewer rows than functions it has fewer of these, unless a number is asked for.

        See :meth:`Recipe.of`.
        """
        made = super().of(sections, dim, n_rows)
        is_chosen = made.spectral.n_components is None and made.spectral.oversampling is None
        if n_rows is None or made.n_functions <= n_rows or not is_chosen:
            return made
        return made.model_copy(update={"spectral": made._carried_by(int(n_rows))})

    # ---- stages ----------------------------------------------------------------------------------------------

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        tried = ("trial",) if self.is_tried else ()
        codes = (self.coder, "codes") if self.makes_codes else ()
        features: tuple[str, ...] = ()
        if self.makes_features:
            rebuilt = ("siamese_neighbors", "siamese_graph")
            features = ("siamese", "features", *(("reweight",) if self.siamese.use == "reweight" else rebuilt))
        taught = ("polish", "distill") if self.distills else ()
        drawn = ("map",) if self.map.enabled else ()
        return (
            "pack",
            *tried,
            *codes,
            "neighbors",
            "graph",
            *features,
            "train",
            *taught,
            "calibrate",
            "cluster",
            "tree",
            *drawn,
            "embed",
            "exemplars",
        )

    @property
    def searches(self) -> dict[str, str]:
        """By stage that searches neighbours, the stage among whose rows."""
        first = {"neighbors": self.searched}
        return first | {"siamese_neighbors": "features"} if self.embedded_graph == "siamese_graph" else first

    @property
    def distills(self) -> bool:
        """Whether trained functions are polished and taught: of a graph that fits into a task.

        Edges made inside batches are those of another graph.
        """
        few = self.n_rows is None or can_polish(self.n_rows, self.n_functions, self.graph.n_neighbors)
        return self.distill.enabled and self.affinity.scope == "global" and few

    @property
    def learned_by(self) -> str:
        """See :attr:`Recipe.learned_by`; calibration takes that network."""
        return "distill" if self.distills else "train"

    @property
    def embedded_graph(self) -> str:
        """Stage that writes the graph whose eigenfunctions are learned, the last one that writes any."""
        if not self.makes_features:
            return "graph"
        return "reweight" if self.siamese.use == "reweight" else "siamese_graph"

    # ---- widths and budgets ----------------------------------------------------------------------------------

    @property
    def n_components(self) -> int:
        """Eigenfunctions kept, the constant one included."""
        return self.spectral.n_components or default_n_components(self.cluster.n_clusters)

    @property
    def n_functions(self) -> int:
        """Eigenfunctions trained."""
        return self.spectral.n_functions(self.n_components)

    @property
    def n_carried(self) -> int:
        """Most functions that can be independent: one for each unit of the last hidden layer, and the constant."""
        return self.network.hidden[-1] + 1

    def for_rows(self, n_rows: int, n_distinct: int | None = None) -> Self:
        """Return the recipe with no more neighbours and functions than so few rows carry.

        Where weights do not fall with distance, neighbours are at most half of the other rows: were all of them
        neighbours of each other, the graph would say nothing. There are no more independent functions than different
        rows, and than units of the last hidden layer and the constant; clusters need as many functions, beyond that
        half as many as rows do.

        Args:
            n_rows: N.
            n_distinct: how many rows differ; None: all.
        """
        n_others = n_rows - 1 if falls_with_distance(self.affinity.kind) else max(1, (n_rows - 1) // 2)
        n_neighbors = min(self.graph.n_neighbors, n_others)
        scale_neighbor = min(self.affinity.scale_neighbor, n_neighbors)
        return self.model_copy(
            update={
                "graph": self.graph.model_copy(update={"n_neighbors": n_neighbors}),
                "affinity": self.affinity.model_copy(update={"scale_neighbor": scale_neighbor}),
                "spectral": self._carried_by(n_rows if n_distinct is None else n_distinct),
            }
        )

    def _carried_by(self, n_distinct: int) -> SpectralConfig:
        """Return the section ``spectral`` with as many functions as so many different rows carry."""
        n_clusters = self.n_components if self.cluster.n_clusters == "auto" else self.cluster.n_clusters
        n_enough = min(max(2, n_distinct // 2, min(n_clusters, n_distinct)), self.n_carried)
        n_components = self.spectral.n_components or min(self.n_components, n_enough)
        n_functions = max(min(self.spectral.n_functions(n_components), n_enough), n_components, 2)
        functions = {"n_components": n_components, "oversampling": n_functions - n_components}
        return self.spectral.model_copy(update=functions)

    @property
    def trainings(self) -> dict[str, TrainSettings]:
        """Settings by stage that trains."""
        made: dict[str, TrainSettings] = {}
        if "autoencoder" in self.chain:
            made["autoencoder"] = AutoencoderSettings(
                train=self.autoencoder, seed=self.seed, start_from=self._first_weights("autoencoder")
            )
        if self.makes_features:
            made["siamese"] = SiameseSettings(
                train=self.siamese, seed=self.seed, start_from=self._first_weights("siamese")
            )
        made["train"] = self.functions
        if self.distills:
            n_taught = max(self.n_components, 2)
            made["distill"] = DistillSettings(train=self.distill, n_functions=n_taught, seed=self.seed)
        if self.map.enabled:
            made["map"] = MapSettings(
                train=self.map,
                seed=self.seed,
                start_from=self._first_weights("map"),
                start_model=self._first_weights("model"),
            )
        return made

    @property
    def learns_from(self) -> dict[str, tuple[tuple[str, ...], str | None]]:
        """By stage that trains: stages whose rows its network sees side by side; the graph's."""
        made: dict[str, tuple[tuple[str, ...], str | None]] = {
            "autoencoder": (("pack",), None),
            "siamese": ((self.searched,), "graph"),
            "train": (tuple(self.seen.values()), self.embedded_graph),
            "distill": ((*self.seen.values(), "polish"), None),
            "map": (tuple(self.seen.values()), self.embedded_graph),
        }
        return {stage: made[stage] for stage in self.trainings}

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Widths of each network from input to output; the constant function is no output."""
        widths, code, siamese = self.widths, self.autoencoder, self.siamese
        n_seen = sum(widths[stage] for stage in self.seen.values())
        made = {
            "autoencoder": (self.dim, *code.widths(self.dim), code.n_components),
            "siamese": (widths[self.searched], *siamese.hidden, siamese.n_components),
            "train": (n_seen, *self.network.hidden, self.n_functions - 1),
            "distill": (n_seen, *self.network.hidden, max(self.n_components, 2) - 1),
            "map": (n_seen + self.n_components - 1, *self.map.hidden, N_ANCHORS, 2),
        }
        linear = {"pca": (self.dim, widths["codes"])} if "pca" in self.chain else {}
        return {**linear, **{stage: made[stage] for stage in self.trainings}}

    @property
    def functions(self) -> SpectralSettings:
        """All that decides the eigenfunctions besides the rows and their graph."""
        train = StartConfig(**dict(self.train)) if self.distills else self.train
        return SpectralSettings(
            network=self.network,
            spectral=self.spectral,
            orthonorm=self.orthonorm,
            train=train,
            affinity=self.affinity,
            n_neighbors=self.graph.n_neighbors,
            n_components=self.n_components,
            seed=self.seed,
            start_from=self._first_weights("training"),
        )

    @property
    def learned(self) -> str:
        """What the run learns."""
        return f"{self.n_components} eigenfunctions kept"

    # ---- what is bound to fail -------------------------------------------------------------------------------

    def check(self, n_rows: int, has_labels: bool) -> None:
        """Refuse what is bound to fail on so many rows; see :meth:`Recipe.check`."""
        del has_labels
        self._check_rows(n_rows)
        self._check_inputs()
        if not self.brings_graph:
            check_affinity(self.graph.n_neighbors, self.affinity)
        self._check_precomputed()
        if self.network.trunk is not None:
            raise ConfigError(
                "network.trunk: is set, but calibration folds a rotation into the perceptron of objective spectral; "
                "remove it and set network.hidden",
                ["network.trunk", "network.hidden"],
            )

    def _check_precomputed(self) -> None:
        """Refuse what cannot go with affinities that are known already."""
        if self.affinity.kind != "precomputed":
            return
        if not self.brings_graph:
            raise ConfigError(
                "affinity.kind: is precomputed, but there is no graph.path whose affinities these are; name one (of an "
                "estimator: fit(X, graph=A)), or another kind",
                ["affinity.kind", "graph.path"],
            )
        for key, found, refused, fit in (
            ("affinity.space", self.affinity.space, "siamese", "euclidean or auto"),
            ("affinity.scope", self.affinity.scope, "batch", "global"),
            ("graph.connect", self.graph.connect, "nearest", "none"),
        ):
            if found == refused:
                raise ConfigError(
                    f"{key}: is {found}, which needs distances, and affinity.kind is precomputed; set {key} to {fit}",
                    [key, "affinity.kind"],
                )

    def _check_rows(self, n_rows: int) -> None:
        n_clusters, n_neighbors = self.cluster.n_clusters, self.graph.n_neighbors
        if isinstance(n_clusters, int) and n_clusters > n_rows:
            raise TooManyClustersError(
                f"cluster.n_clusters: is {n_clusters}, but data.path holds {n_rows} rows; ask for at most as many as "
                "rows",
                ["cluster.n_clusters", "data.path"],
            )
        if n_rows < n_neighbors + 1 and not self.brings_graph:
            raise TooFewRowsError(
                f"data.path: holds {n_rows} rows, but graph.n_neighbors = {n_neighbors} needs at least "
                f"{n_neighbors + 1}; lower graph.n_neighbors",
                ["data.path", "graph.n_neighbors"],
            )
        if self.n_functions > n_rows:
            raise TooFewRowsError(
                f"data.path: holds {n_rows} rows, but {self.n_functions} functions are to be trained "
                f"({self.n_components} kept and the oversampling); lower spectral.n_components, spectral.oversampling "
                "or cluster.n_clusters",
                ["data.path", "spectral.n_components", "spectral.oversampling", "cluster.n_clusters"],
            )

        if (asked := self.spectral.n_components) is not None and asked > self.n_carried:
            raise ConfigError(
                f"spectral.n_components: is {asked}, but the last hidden layer has {self.n_carried - 1} units "
                f"(network.hidden), which carry {self.n_carried} independent functions; ask for fewer, or widen it",
                ["spectral.n_components", "network.hidden"],
            )

    def _check_inputs(self) -> None:
        """Refuse inputs of the network that the run does not, or may not, make."""
        inputs = self.train.inputs
        if inputs == "auto":
            return
        if len(set(inputs)) < len(inputs):
            raise ConfigError(f"train.inputs: names one twice ({', '.join(inputs)}); name each once", ["train.inputs"])
        asked = self.affinity.space
        needs: dict[Space, tuple[str, tuple[str, ...], str]] = {
            "code": ("representation", ("code", "pca"), self.representation),
            "siamese": ("affinity.space", ("siamese",) if self.brings_graph else ("siamese", "auto"), asked),
        }
        for space in inputs:
            key, wanted, found = needs.get(space, ("", ("",), ""))
            if found not in wanted:
                raise ConfigError(
                    f"train.inputs: asks for {space}, which needs {key} = {' or '.join(wanted)}; it is {found}",
                    ["train.inputs", key],
                )

    @property
    def starts(self) -> dict[str, str]:
        """See :attr:`Recipe.starts`; a trial and principal components are taken over: the weights know no others."""
        begun = {stage: self._first_weights(stage) for stage in ("trial", "pca") if stage in self.chain}
        return {**{stage: uri for stage, uri in begun.items() if uri is not None}, **super().starts}

    @property
    def follows(self) -> str | None:
        """See :attr:`Recipe.follows`: that of the run to start from."""
        return None if self.start_from is None else absolute(self.start_from)

    def given(self) -> dict[str, str]:
        """See :meth:`Recipe.given`: the graph's, which lie where ``graph.path`` says."""
        if (path := self.graph.path) is None:
            return {}
        return {"neighbors": fingerprint(absolute(path), precomputed=self.affinity.kind == "precomputed")}

    def _shape(self, stage: str) -> dict[str, Any]:
        if stage == "trial":
            return {}
        return {"n_components": self.widths["codes"]} if stage == "pca" else super()._shape(stage)

    def _sees_rows_alone(self, stage: str) -> bool:
        if stage == "trial":
            return False
        return stage in ("autoencoder", "pca") or not (self.makes_codes or self.makes_features)
