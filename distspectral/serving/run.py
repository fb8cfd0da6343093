"""A finished run in Python: what it wrote as Arrow, pandas, Polars or NumPy, and its model for rows in memory.

Shape letters: N rows of the run, B rows asked about, D features, P components.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch
from numpy.typing import NDArray

from distspectral.config.load import config_of
from distspectral.embedding.columns import OF_MAP, require_column
from distspectral.errors import (
    ConfigError,
    MissingArtifactError,
    MissingDependencyError,
    NonFiniteRowError,
    ShardWidthError,
)
from distspectral.plotting import draw_embedding, draw_rows
from distspectral.recipes import SpectralRecipe
from distspectral.serving.predictor import Predictor, load_predictor
from distspectral.stages.finished_run import METRICS, FinishedRun
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.rows.columns import to_array

if TYPE_CHECKING:
    from distspectral.config.run import RunConfig

BLOCK_ROWS = 16_384
"""That pass the network at a time."""


class Run:
    """A finished run. Nothing is read before it is asked for, and the model once only.

    Rows are in the order of the run's shards.

    Args:
        root: the run's directory, a local path or a URI.

    Raises:
        MissingArtifactError: no finished run stands there.

    Example:
        >>> from distspectral import Run
        >>> run = Run("runs/mine")  # doctest: +SKIP
        >>> run.to_pandas(["id", "cluster"])  # doctest: +SKIP
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Artifact(os.fspath(root))
        self._finished = FinishedRun(self._root)
        self.objective = self._finished.kind

    def __repr__(self) -> str:
        return f"Run({self._root.uri!r})"

    # ---- what it was and came to ---------------------------------------------------------------------------------

    @property
    def config(self) -> RunConfig:
        """What the run was told, resolved; without the section ``mlflow``."""
        return config_of(self._root)

    @property
    def metrics(self) -> dict[str, Any]:
        """Every number of the report.

        Raises:
            MissingArtifactError: a stage of the run is not finished.
        """
        if not self._root.has(METRICS):
            raise MissingArtifactError(f"{self._root.uri}: has no {METRICS} yet; `distspectral run` finishes the run")
        metrics: dict[str, Any] = self._root.read_json(METRICS)
        return metrics

    # ---- what it wrote -------------------------------------------------------------------------------------------

    def dataset(self) -> pyarrow.dataset.Dataset:
        """Return the rows written as a dataset: of it, only what a query needs is read.

        Raises:
            ArtifactError: the stage ``embed`` is not finished, or a file of it is missing.
        """
        output, manifest = self._output()
        kind = "parquet" if self.objective == SpectralRecipe.kind else "ipc"
        files = [output.file_path(shard.name) for shard in manifest.shards]
        return pyarrow.dataset.dataset(files, format=kind, filesystem=output.filesystem)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows written, or some columns of them.

        Raises:
            ArtifactError: see :meth:`dataset`.
            ConfigError: there is no such column.
        """
        dataset = self.dataset()
        names = dataset.schema.names
        if unknown := [name for name in columns or () if name not in names]:
            raise ConfigError(f"{self._root.uri}: wrote no column {unknown[0]!r}; there are {', '.join(names)}")
        return dataset.to_table(columns=None if columns is None else list(columns))

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Return the same as a ``pandas.DataFrame``."""
        _require("pandas")
        return self.to_arrow(columns).to_pandas()

    def to_polars(self, columns: Sequence[str] | None = None) -> Any:
        """Return the same as a ``polars.DataFrame``."""
        return _require("polars").from_arrow(self.to_arrow(columns))

    def ids(self) -> pa.ChunkedArray:
        """Return the N ids, int64 or strings."""
        return self.to_arrow(["id"])["id"]

    def embedding(self) -> NDArray[np.float32]:
        """Return the coordinates (N, P): eigenfunctions in eigenvalue order, or the learned metric.

        Raises:
            ConfigError: the run was told not to write them.
        """
        if self.objective != SpectralRecipe.kind:
            return _matrix(self.to_arrow(["vector"])["vector"])
        output, manifest = self._output()
        require_column(manifest, "embedding", output.uri)
        return _matrix(self.to_arrow(["embedding"])["embedding"])

    def clusters(self) -> NDArray[np.int32]:
        """Return the cluster (N,) of every row.

        Raises:
            ConfigError: the run has none, or was told not to write them.
        """
        self._finished.require_kind(SpectralRecipe.kind, "clusters")
        output, manifest = self._output()
        require_column(manifest, "cluster", output.uri)
        clusters: NDArray[np.int32] = self.to_arrow(["cluster"])["cluster"].to_numpy()
        return clusters

    def map(self) -> NDArray[np.float32]:
        """Return the places (N, 2) of the rows on the map, x and y.

        Raises:
            ConfigError: the run has none, or was told not to write them.
        """
        self._finished.require_kind(SpectralRecipe.kind, "map")
        output, manifest = self._output()
        for column in OF_MAP:
            require_column(manifest, column, output.uri)
        table = self.to_arrow(OF_MAP)
        return np.stack([table[column].to_numpy() for column in OF_MAP], axis=1)

    def plot(self, colour_by: str = "cluster", ax: Any = None) -> Any:
        """Draw the rows as points by matplotlib, and return the axes.

        They lie by the columns ``x`` and ``y`` of the run's map, or by the first two eigenfunctions that are not
        constant, or by the first two coordinates of a metric. Of very many rows a random choice is drawn.

        Args:
            colour_by: name of a column of the output; a metric is coloured by ``label`` alone.
            ax: axes to draw into; None makes a figure.

        Raises:
            ConfigError: there is no such column, or the run was told to write neither places nor coordinates.
        """
        carried, names = self._output()[1].properties.get("carried", ()), self.dataset().schema.names
        if self.objective != SpectralRecipe.kind:
            colour_by = "label" if colour_by == "cluster" else colour_by
        groups = self.to_arrow([colour_by])[colour_by].to_pylist()
        if {"x", "y"} <= {name for name in names if name not in carried}:
            places = self.to_arrow(["x", "y"])
            return draw_rows(places["x"], places["y"], groups, ax, axes_named=("map, x", "map, y"))
        return draw_embedding(self.embedding(), groups, ax, skip=int(self.objective == SpectralRecipe.kind))

    # ---- its model -----------------------------------------------------------------------------------------------

    def embed(self, rows: Any) -> dict[str, NDArray[Any]]:
        """Return what the model says of rows in memory; ``distspectral embed`` is for shards.

        Args:
            rows: (B, D) numbers as the run's vectors were before anything was done to them.

        Returns:
            ``embedding`` (B, P) float32; of a spectral run ``cluster``, ``distance``, ``leaf`` and ``is_outlier`` (B,),
            too, and if it has a map, the place on it, ``x`` and ``y`` (B,).

        Raises:
            ShardWidthError: the rows have another width.
            NonFiniteRowError: a value is NaN, infinite or beyond float32 in the frame of the run's rows.
            ArtifactError: the model is not finished, or its files are damaged.
        """
        predictor, raw = self._predictor, _rows(rows)
        if raw.ndim != 2 or raw.shape[1] != predictor.dim:
            raise ShardWidthError(f"rows: have shape {raw.shape}, expected (rows, {predictor.dim}), as {self} has")
        framed = predictor.frame.framed(raw)
        if not predictor.frame.holds(framed):
            row, feature, problem = predictor.frame.first_misfit(raw, framed)
            raise NonFiniteRowError(f"rows: row {row}, feature {feature}: {problem}; drop or repair the row")
        with torch.inference_mode():
            blocks = [predictor.module(block) for block in torch.split(torch.from_numpy(framed), BLOCK_ROWS)]
        made = (torch.cat(parts).numpy() for parts in zip(*blocks, strict=True))
        return dict(zip(predictor.outputs, made, strict=True))

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return load_predictor(self._root)

    def _output(self) -> tuple[Artifact, Manifest]:
        try:
            return self._finished.artifact("embed"), self._finished.require("embed")
        except MissingArtifactError as error:
            raise MissingArtifactError(
                f"{self._root.uri}: the stage `embed` is not finished; `distspectral run` goes on with the run"
            ) from error


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = to_array(column.combine_chunks())
    return matrix


def _rows(rows: Any) -> NDArray[Any]:
    """Return rows as a C-contiguous array: of a column of lists, too."""
    array = np.asarray(rows)
    if array.dtype == object and array.ndim == 1 and len(array):
        array = np.stack([np.asarray(one) for one in array])
    return np.ascontiguousarray(array, array.dtype if array.dtype in (np.float32, np.float64) else np.float64)


def _require(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise MissingDependencyError(f"{name} is not installed: pip install {name}") from error
