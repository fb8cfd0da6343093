"""What can be written of a row: its coordinates, its cluster, how far and how surely; one module makes all of it.

Shape letters: B rows, D features, P components, C clusters, M nearest clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, nn

from distspectral.errors import ConfigError
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.rows.columns import ARROW_TYPES, ScalarType

if TYPE_CHECKING:
    from distspectral.models.embedder import Embedder
    from distspectral.storage.source.dataset import Source

Column = Literal[
    "embedding",
    "cluster",
    "distance",
    "margin",
    "leaf",
    "is_outlier",
    "probabilities",
    "nearest_clusters",
    "x",
    "y",
]

MEANINGS: dict[Column, str] = {
    "embedding": "the coordinates",
    "cluster": "that of the nearest centroid",
    "distance": "to that centroid",
    "margin": "by which the next centroid is farther; infinite where there is one alone",
    "leaf": "that of the tree, inside the cluster",
    "is_outlier": "whether it is farther than usual from its cluster's mean or its leaf",
    "probabilities": "of all clusters, exp(-d^2 / (2 variance)) over its sum",
    "nearest_clusters": "the embed.n_nearest nearest in order",
    "x": "where the map has the row, from left to right",
    "y": "likewise, upwards",
}
"""As the config's reference says it."""
DEFAULT_COLUMNS: tuple[Column, ...] = ("embedding", "cluster", "distance", "margin", "leaf", "is_outlier", "x", "y")
OF_MAP: tuple[Column, ...] = ("x", "y")
"""What a run without a map cannot write."""


def columns_of(asked: Literal["auto"] | tuple[Column, ...], has_map: bool) -> tuple[Column, ...]:
    """Return the columns to write.

    Args:
        asked: ``auto``: the default ones, those of the map where there is one.
        has_map: whether the run has one.

    Raises:
        ConfigError: one is of the map, and there is none.
    """
    if asked == "auto":
        return tuple(column for column in DEFAULT_COLUMNS if has_map or column not in OF_MAP)
    if not has_map and (lacking := [column for column in asked if column in OF_MAP]):
        raise ConfigError(
            f"embed.columns: asks for {lacking[0]}, a place on the map, which this run does not draw (map.enabled is "
            "false); draw it, or leave the column out",
            ["embed.columns", "map.enabled"],
        )
    return asked


class RowColumns(nn.Module):
    """Raw vectors in; a tensor for every column that is asked for out, and always cluster and distance.

    Args:
        embedder: what embeds.
        columns: asked for; those of the map need an embedder that has one.
        n_nearest: M, of ``nearest_clusters``.
    """

    def __init__(self, embedder: Embedder, columns: Sequence[Column], n_nearest: int) -> None:
        super().__init__()
        self.embedder, self.columns = embedder, tuple(columns)
        self.n_nearest = min(n_nearest, len(embedder.assigner.centroids))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the columns, B rows each, of rows ``x`` (B, D)."""
        seen, embedding = self.embedder.seen_and_embedding(x)
        squared = self.embedder.assigner.squared_distances(embedding)
        least, cluster = squared.min(1)
        made = {"cluster": cluster.int(), "distance": least.sqrt()}
        if "embedding" in self.columns:
            made["embedding"] = embedding
        if "margin" in self.columns:
            made["margin"] = self.embedder.assigner.margins(squared)
        if "leaf" in self.columns or "is_outlier" in self.columns:
            leaf = self.embedder.assigner.leaf(embedding, cluster)
            made["leaf"] = leaf.int()
            made["is_outlier"] = self.embedder.are_outliers(seen, embedding, cluster, leaf)
        if "probabilities" in self.columns:
            made["probabilities"] = self.embedder.assigner.probabilities(squared)
        if "nearest_clusters" in self.columns:
            order = squared.sort(dim=1, stable=True).indices  # of equals the lower number first, like the minimum
            made["nearest_clusters"] = order[:, : self.n_nearest].int()
        if set(OF_MAP) & set(self.columns):
            places = self.embedder.places(seen, embedding)
            assert places is not None, "columns of the map are refused where there is none"
            made["x"], made["y"] = places.unbind(1)
        return made

    def schema(self, id_type: ScalarType) -> pa.Schema:
        """Return the schema of the table that is written: id, then the columns as they were asked for."""
        widths = {
            "embedding": (pa.float32(), len(self.embedder.assigner.scale)),
            "probabilities": (pa.float32(), len(self.embedder.assigner.centroids)),
            "nearest_clusters": (pa.int32(), self.n_nearest),
        }
        kinds = {name: pa.list_(kind, width) for name, (kind, width) in widths.items()}
        kinds |= {"cluster": pa.int32(), "distance": pa.float32(), "margin": pa.float32(), "leaf": pa.int32()}
        kinds["is_outlier"] = pa.bool_()
        kinds |= dict.fromkeys(OF_MAP, pa.float32())
        return pa.schema([("id", ARROW_TYPES[id_type]), *((name, kinds[name]) for name in self.columns)])


def record_batch(schema: pa.Schema, ids: pa.Array, made: Mapping[str, NDArray[Any]]) -> pa.RecordBatch:
    """Return B rows as a table of :meth:`RowColumns.schema`.

    Its values are copies in Arrow's own memory. Small results that wait for their row group among the network's large
    and short-lived activations would leave holes of these sizes in the heap: with batches of 2,048, 972 MB became 446.
    """
    arrays = [ids]
    for name in schema.names[1:]:
        values, flat = made[name], _copied(made[name])
        arrays.append(flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
    return pa.record_batch(arrays, schema=schema)


def _copied(values: NDArray[Any]) -> pa.Array:
    """Return all values in row order as a flat array in memory of Arrow's pool."""
    if values.dtype == bool:  # bits there
        return pa.array(values)
    buffer = pa.allocate_buffer(values.nbytes)
    np.frombuffer(buffer, values.dtype).reshape(values.shape)[...] = values
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [None, buffer])


def refuse_clashes(source: Source) -> None:
    """Refuse carried columns that have a name of ours.

    Raises:
        ConfigError: one has.
    """
    if clashes := [name for name in source.carried.names if name in ("id", *MEANINGS)]:
        raise ConfigError(
            f"data.carry: takes over the column {clashes[0]!r} of {source.shards[0].uri}, but the output has one of "
            "that name itself; rename it there, or name the others in data.carry",
            parameters=["data.carry"],
        )


def written_columns(output: Manifest) -> tuple[str, ...]:
    """Return the columns of a finished ``output`` artifact beside the id."""
    return tuple(output.properties["columns"])


def require_column(output: Manifest, column: Column, uri: str) -> None:
    """Refuse an ``output`` artifact that was written without a column.

    Raises:
        ConfigError: it was, or the column is of the map of a run that has none.
    """
    if column in OF_MAP and "map" not in output.inputs:
        raise ConfigError(
            f"{uri}: has no column {column}, for the run has no map; set map.enabled to true, and `distspectral run` "
            "draws it",
            parameters=["map.enabled"],
        )
    if column not in written_columns(output):
        raise ConfigError(
            f"{uri}: was written without the column {column}; add it to embed.columns and run the stage `embed` again",
            parameters=["embed.columns"],
        )
