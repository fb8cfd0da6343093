"""In which spaces rows are searched and seen, and what decides where that is left open.

Neighbours are searched among the rows, or among codes: an autoencoder's, or principal components. The network that
learns the eigenfunctions should see the space in which the graph is smooth, so it sees what neighbours were searched in
and the Siamese features.
"""

from __future__ import annotations

from typing import Self

from distspectral.embedding.pca import WIDEST
from distspectral.graph.config import Metric
from distspectral.graph.trial import LEAST_DIM, Trial, ways
from distspectral.graph.trial import Space as SearchSpace
from distspectral.models.encoded import Space
from distspectral.recipes.recipe import Recipe
from distspectral.recipes.spectral_sections import (
    CODED_ROWS,
    ENOUGH_VARIANCE,
    WIDEST_CODED,
    Representation,
    SpectralSections,
)


class SpectralSpaces(SpectralSections, Recipe):
    """The spaces of a spectral run.

    Attributes:
        kept_variance: share of the variance that the codes keep, None as long as nobody knows; ``representation:
            auto`` is decided by it.
        trial: of what neighbours are searched in, None as long as there was none; it decides ``representation: auto``
            and ``graph.metric: auto``.
        graph_given: whether the graph is one in memory, as :attr:`brings_graph`.
    """

    kept_variance: float | None = None
    trial: Trial | None = None
    graph_given: bool = False

    @property
    def brings_graph(self) -> bool:
        """Whether the graph was made elsewhere; ``auto`` then makes no codes, and weighs its edges as they are."""
        return self.graph_given or self.graph.path is not None

    @property
    def open_spaces(self) -> tuple[SearchSpace, ...]:
        """What neighbours may be searched in before any code is known, the simplest first; none among codes alone.

        ``auto`` leaves components open where there are at most half as many as features.
        """
        if self.brings_graph or self.representation == "code":
            return ()
        if self.representation == "pca":
            return ("components",)
        has_fewer = 2 * self.pca.n_components <= self.dim <= WIDEST and self.graph.metric != "inner_product"
        return ("rows", "components") if self.representation == "auto" and has_fewer else ("rows",)

    @property
    def is_tried(self) -> bool:
        """Whether a trial decides what neighbours are searched in or by which distance."""
        return self.dim >= LEAST_DIM and len(ways(self.open_spaces, self.graph.metric)) > 1

    @property
    def decided(self) -> Representation:
        """``representation``, with what the trial decided of ``auto``."""
        in_components = self.trial is not None and self.trial.space == "components"
        return "pca" if self.representation == "auto" and in_components else self.representation

    def metric_of(self, stage: str) -> Metric:
        """Return the distance of a stage that searches; ``auto`` is Euclidean unless the trial of the rows says else.

        Args:
            stage: the first search, or the one among Siamese features.
        """
        among_coded = self.searches_codes and self.coder != "pca"
        if self.graph.metric != "auto" or self.trial is None or stage != "neighbors" or among_coded:
            return self.graph.stated_metric
        return self.trial.metric

    @property
    def makes_codes(self) -> bool:
        """Whether rows are encoded; ``auto`` leaves few, narrow and very wide ones as they are."""
        if self.decided == "auto":
            are_many = self.n_rows is None or self.n_rows >= CODED_ROWS
            return not self.brings_graph and are_many and self.autoencoder.n_components < self.dim <= WIDEST_CODED
        return self.decided in ("code", "pca")

    @property
    def coder(self) -> str:
        """Stage that makes the encoder of codes, where there are any."""
        return "pca" if self.decided == "pca" else "autoencoder"

    @property
    def searches_codes(self) -> bool:
        """Whether neighbours are searched among the codes; ``auto`` takes them if as much is known as can be hoped."""
        kept = 1.0 if self.kept_variance is None else self.kept_variance
        return self.makes_codes and (self.decided != "auto" or kept >= ENOUGH_VARIANCE)

    @property
    def makes_features(self) -> bool:
        """Whether a Siamese network is trained, whose distances weigh, or may weigh, the edges."""
        return self.affinity.space == "siamese" or (self.affinity.space == "auto" and not self.brings_graph)

    def knowing(self, kept_variance: float | None = None, trial: Trial | None = None) -> Self:
        """Return the recipe with what decides ``auto``: the trial, and the share of the variance that codes keep."""
        return self.model_copy(update={"kept_variance": kept_variance, "trial": trial})

    @property
    def searched(self) -> str:
        """Stage among whose rows neighbours are searched; the Siamese network sees them too."""
        return "codes" if self.searches_codes else "pack"

    @property
    def may_search(self) -> tuple[str, ...]:
        """Stages of which :attr:`searched` may be one, whatever the variance that codes turn out to keep."""
        if not self.makes_codes:
            return ("pack",)
        return ("pack", "codes") if self.decided == "auto" else ("codes",)

    @property
    def seen(self) -> dict[Space, str]:
        """What the eigenfunctions' network sees: by space, the stage that writes it."""
        made: dict[Space, str] = {"code": "codes"} if self.searches_codes else {"vector": "pack"}
        if self.makes_features:
            made["siamese"] = "features"
        if self.train.inputs == "auto":
            return made
        return {space: made.get(space, "pack") for space in self.train.inputs}

    @property
    def may_see(self) -> tuple[str, ...]:
        """Stages whose rows the network might see."""
        features = ("features",) if self.makes_features else ()
        return tuple(dict.fromkeys(("pack", *self.may_search, *features)))

    @property
    def encoders(self) -> dict[str, str]:
        """What a raw row passes before that network: argument of ``EncodedNetwork``, stage that trains it."""
        found = {}
        if "code" in self.seen or ("siamese" in self.seen and self.searches_codes):
            found["encoder"] = self.coder
        if "siamese" in self.seen:
            found["siamese"] = "siamese"
        return found

    @property
    def widths(self) -> dict[str, int]:
        """Features of a row by stage that writes rows; so few rows that they have fewer components aside."""
        coded = {"autoencoder": self.autoencoder.n_components, "pca": min(self.pca.n_components, self.dim)}
        return {"pack": self.dim, "codes": coded[self.coder], "features": self.siamese.n_components}
