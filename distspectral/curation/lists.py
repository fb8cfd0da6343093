"""The neighbour lists of a finished run, with distances between the rows as they were given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError
from distspectral.graph.distances import under_metric
from distspectral.graph.near import OF_SEARCH, Measure, RemeasuredLists, Scale
from distspectral.graph.store import SQUARED_DISTANCES, MappedGraph, StreamedGraph, edge_blocks
from distspectral.recipes import SpectralRecipe
from distspectral.stages.finished_run import FinishedRun
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
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
        run = FinishedRun(root)
        run.require_kind(SpectralRecipe.kind, "neighbour lists")
        vectors, neighbors = run.artifact("pack"), run.artifact("neighbors")
        found = neighbors.manifest()
        searched_by, frame = found.metrics["metric"], Frame.of_properties(vectors.manifest().properties["frame"])
        chosen = measure or OF_SEARCH[searched_by]
        scale = Scale(chosen, 2.0**frame.exponent / frame.factor)
        return cls(vectors, neighbors, scale, found.properties["searched"] == "pack" and chosen == searched_by)

    def shards(self) -> list[tuple[Shard, int]]:
        """Return the shards of the lists, and the number of the first row of each."""
        return self.neighbors.manifest().shards_and_first_rows

    def blocks(
        self, shard: Shard, first: int, block_rows: int
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (first row, neighbours (B, K), squared distances (B, K)) of one shard's rows; it is open meanwhile.

        Args:
            shard: of :meth:`shards`.
            first: number of its first row.
            block_rows: B, at most.
        """
        lists: StreamedGraph = MappedGraph(self.neighbors, [shard], SQUARED_DISTANCES)
        if not self.are_stored:
            lists = RemeasuredLists(lists, under_metric(FleetingVectors(self.vectors), self.scale.measure), first)
        for start, neighbors, squared in edge_blocks(lists, block_rows):
            yield first + start, neighbors, squared
