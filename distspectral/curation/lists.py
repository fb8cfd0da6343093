"""The neighbour lists of a finished run, with distances between the rows as they were given."""

from __future__ import annotations

import dataclasses
from typing import get_args

from distspectral.errors import ConfigError
from distspectral.graph.distances import under_metric
from distspectral.graph.near import OF_SEARCH, Measure, RemeasuredLists, Scale
from distspectral.graph.store import SQUARED_DISTANCES, MappedGraph, StreamedGraph
from distspectral.recipes import SpectralRecipe
from distspectral.stages import folder_of, kind_of
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.frame import Frame
from distspectral.storage.rows.vectors import FleetingVectors


@dataclasses.dataclass(frozen=True)
class RunLists:
    """What a finished run knows of its rows' neighbours; picklable.

    Attributes:
        vectors: the artifact of the packed rows.
        neighbors: the artifact of the lists.
        scale: what near means, and in what unit.
        are_stored: whether the distances beside the lists are those asked for, so that no row is read.
    """

    vectors: Artifact
    neighbors: Artifact
    scale: Scale
    are_stored: bool

    @classmethod
    def of(cls, root: Artifact, measure: Measure | None = None) -> RunLists:
        """Return the lists of a run.

        Args:
            root: directory of a finished run.
            measure: what near means; None: by the run's metric.

        Raises:
            MissingArtifactError: nothing of the kind stands there.
            ConfigError: the run has no neighbour lists, or there is no such measure.
        """
        if measure is not None and measure not in get_args(Measure):
            raise ConfigError(f"--metric: is {measure}; choose from {', '.join(get_args(Measure))}")
        if kind_of(root) != SpectralRecipe.kind:
            raise ConfigError(
                f"{root.uri}: a run of objective dscl has no neighbour lists; take one of objective spectral"
            )
        vectors, neighbors = (root.child(folder_of(SpectralRecipe.kind, name)) for name in ("pack", "neighbors"))
        found = neighbors.manifest()
        searched_by, frame = found.metrics["metric"], Frame.of_properties(vectors.manifest().properties["frame"])
        chosen = measure or OF_SEARCH[searched_by]
        scale = Scale(chosen, 2.0**frame.exponent / frame.factor)
        return cls(vectors, neighbors, scale, found.properties["searched"] == "pack" and chosen == searched_by)

    def open(self) -> StreamedGraph:
        """Return the lists with squared distances in place of affinities."""
        lists = MappedGraph(self.neighbors, weights=SQUARED_DISTANCES)
        return (
            lists
            if self.are_stored
            else RemeasuredLists(lists, under_metric(FleetingVectors(self.vectors), self.scale.measure))
        )
