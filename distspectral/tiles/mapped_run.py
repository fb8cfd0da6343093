"""A finished run whose map is to become tiles: its rows and its tree, which must belong together.

Shape letter: B rows of a block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.embedding.columns import OF_MAP, require_column, written_columns
from distspectral.errors import ConfigError
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.tree import Tree
from distspectral.stages.finished_run import FinishedRun
from distspectral.stages.tree_files import load_tree
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard


@dataclasses.dataclass(frozen=True)
class MappedRun:
    """A finished run that has a map and a tree.

    Attributes:
        output: its artifact of rows.
        manifest: of it.
        tree: the tree that its leaves belong to.
        tree_fingerprint: of the artifact of that.
    """

    output: Artifact
    manifest: Manifest
    tree: Tree
    tree_fingerprint: str

    @classmethod
    def of(cls, root: Artifact) -> MappedRun:
        """Return what is known of a run.

        Args:
            root: its directory.

        Raises:
            ConfigError: it has no map, or its output lacks a column.
            ArtifactError: output or tree are missing or damaged, or do not belong together.
        """
        run = FinishedRun(root)
        run.require_kind(SpectralRecipe.kind, "map")
        output, manifest = run.artifact("embed"), run.require("embed")
        if not run.artifact("map").has(MANIFEST):
            raise ConfigError(
                f"{root.uri}: has no map; set map.enabled to true, and `distspectral run` draws it", ["map.enabled"]
            )
        for column in (*OF_MAP, "cluster", "leaf"):
            require_column(manifest, column, output.uri)
        made = run.require_read("tree", "embed")
        return cls(output, manifest, load_tree(run.artifact("tree"))[0], made.fingerprint)

    @property
    def n_clusters(self) -> int:
        """C."""
        return int(self.manifest.properties["n_clusters"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read beside those carried."""
        outlier = ("is_outlier",) if "is_outlier" in written_columns(self.manifest) else ()
        return ("id", *OF_MAP, "cluster", "leaf", *outlier)

    def shards(self) -> list[tuple[Shard, int]]:
        """Return the shards that have rows, and the number of the first row of each."""
        return [(shard, first) for shard, first in self.manifest.shards_and_first_rows if shard.n_rows]


def blocks(output: Artifact, shard: Shard, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield columns of a shard's rows in their order."""
    with output.filesystem.open_input_file(output.file_path(shard.name)) as stream:
        yield from pq.ParquetFile(stream).iter_batches(n_rows, columns=list(columns))


def are_outliers(rows: pa.RecordBatch | pa.Table) -> NDArray[np.bool_]:
    """Return which rows (B,) are outliers; none where nobody knows."""
    if "is_outlier" not in rows.schema.names:
        return np.zeros(rows.num_rows, bool)
    return np.asarray(pc.fill_null(rows["is_outlier"], False))
