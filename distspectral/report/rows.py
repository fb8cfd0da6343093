"""A sample of a run's output: where rows lie, their clusters, and what else is known of them.

Shape letters: S sampled rows, P components.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.embedding.columns import written_columns
from distspectral.report.data import Cell, Density, RowSample
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, first_rows
from distspectral.storage.rows.vectors import MappedVectors

DRAWN_ROWS = 50_000
"""Rows that a page draws; a browser pans so many smoothly, and with all that is told of them they weigh 3 MB."""
COUNTED_ROWS = 500_000
"""Rows whose places alone are read, for the density behind those drawn."""
SAMPLE_SHARDS = 64
DENSITY_SIDE = 192
MARGIN = 0.03
"""Of the square, around the rows."""
Place = Literal["map", "eigenfunctions"]
FARTHEST = 5
"""Outliers that are named."""
LONGEST_TEXT = 300
"""Characters of a carried text that are kept."""


@dataclasses.dataclass(frozen=True)
class Most:
    """How much a sample may hold: rows drawn, rows counted, shards opened for both."""

    drawn: int = DRAWN_ROWS
    counted: int = COUNTED_ROWS
    shards: int = SAMPLE_SHARDS


def row_sample(
    vectors: Artifact, output: Artifact, manifest: Manifest, seed: int, most: Most | None = None
) -> tuple[RowSample, NDArray[np.int64]]:
    """Return a seeded sample of the output in its order, and the numbers (S,) of its rows.

    It is empty where the output was written without places or clusters. Places are the columns ``x`` and ``y`` of a
    map; without one, the first two eigenfunctions that are not constant.

    Args:
        vectors: ``vectors`` artifact of the same rows, for labels.
        output: finished ``output`` artifact.
        manifest: of ``output``.
        seed: of the choice.
        most: in the sample.
    """
    most = most or Most()
    generator = np.random.default_rng(seed)
    starts = first_rows(manifest.shards)
    filled = np.flatnonzero([shard.n_rows for shard in manifest.shards])
    chosen = filled[np.sort(generator.choice(len(filled), min(len(filled), most.shards), replace=False))]
    names = _schema(output, manifest.shards[chosen[0]].name).names
    own = [name for name in names if name not in manifest.properties.get("carried", ())]
    place: Place = "map" if {"x", "y"} <= set(own) else "eigenfunctions"
    places = ["x", "y"] if place == "map" else ["embedding"]
    if not {"cluster", *places} <= set(own) or "cluster" not in written_columns(manifest):
        return RowSample(x=[], y=[], cluster=[]), np.empty(0, np.int64)

    candidates = int(sum(manifest.shards[index].n_rows for index in chosen))
    counted = np.sort(generator.choice(candidates, min(candidates, most.counted), replace=False, shuffle=False))
    drawn = counted
    if len(counted) > most.drawn:
        drawn = np.sort(generator.choice(counted, most.drawn, replace=False, shuffle=False))

    carried = [name for name in manifest.properties.get("carried", ()) if name in names]
    told = ["id", "cluster", *(name for name in ("leaf", "is_outlier", "distance") if name in own)]
    table, rows = _read(output, manifest, chosen, starts, drawn, [*places, *told, *carried])
    x, y = _places(table, place)
    density = None
    if len(counted) > len(drawn):
        every = _places(_read(output, manifest, chosen, starts, counted, places)[0], place)
        density = _density(Square(x, y, place).places(*every), len(every[0]))
    labels = MappedVectors(vectors).labels()
    columns = {name: cells for name in carried if (cells := carried_cells(table[name])) is not None}
    sample = RowSample(
        x=x.tolist(),
        y=y.tolist(),
        place=place,
        cluster=table["cluster"].to_pylist(),
        leaf=table["leaf"].to_pylist() if "leaf" in told else None,
        outlier=table["is_outlier"].fill_null(False).to_pylist() if "is_outlier" in told else None,
        labels=None if labels is None else _named(labels.take(rows)),
        ids=as_text(table["id"]),
        columns=columns,
        density=density,
        farthest=_farthest(table) if {"is_outlier", "distance"} <= set(told) else [],
    )
    return sample, rows


def _farthest(table: pa.Table) -> list[int]:
    """Return where the outliers farthest from their centroids are."""
    outliers = np.flatnonzero(table["is_outlier"].fill_null(False).to_numpy())
    order = np.argsort(-table["distance"].to_numpy()[outliers], kind="stable")[:FARTHEST]
    places: list[int] = outliers[order].tolist()
    return places


class Square:
    """Takes places to the unit square, by those of the rows drawn.

    A map keeps one unit on both axes; of places far outside nearly all others, some stand on the edge. Eigenfunctions
    of clusters far apart take a few values and little between, so a row stands by its rank in either.

    Args:
        x: (S,) of the rows drawn.
        y: (S,) likewise.
        place: what the coordinates are.
    """

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.float64], place: Place) -> None:
        self._place, self._sorted = place, (np.sort(x), np.sort(y))
        low, high = np.quantile([x, y], [0.001, 0.999], axis=1)
        width = max(float((high - low).max()), float(np.finfo(np.float32).tiny)) * (1 + 2 * MARGIN)
        self._low, self._width = (low + high - width) / 2, width

    def places(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 2) from 0 to 1 of any rows (n,)."""
        if self._place == "map":
            inside: NDArray[np.float64] = np.clip((np.column_stack([x, y]) - self._low) / self._width, 0, 1)
            return inside
        ranks = [
            np.searchsorted(known, values) / len(known) for known, values in zip(self._sorted, (x, y), strict=True)
        ]
        ranked: NDArray[np.float64] = MARGIN + (1 - 2 * MARGIN) * np.column_stack(ranks)
        return ranked


def carried_cells(column: pa.ChunkedArray) -> list[Cell] | None:
    """Return a carried column as numbers or as text; None of what is neither, such as lists."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return [
            None if value is None or not np.isfinite(float(value)) else float(value) for value in column.to_pylist()
        ]
    try:
        text = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    cells: list[Cell] = pc.utf8_slice_codeunits(text, 0, LONGEST_TEXT).to_pylist()
    return cells


def as_text(ids: pa.ChunkedArray) -> list[str]:
    """Return ids as text; bytes in hexadecimal."""
    values = ids.to_pylist()
    return [value.hex() if isinstance(value, bytes) else str(value) for value in values]


def _schema(output: Artifact, name: str) -> pa.Schema:
    with output.filesystem.open_input_file(output.file_path(name)) as stream:
        return pq.ParquetFile(stream).schema_arrow


def _places(table: pa.Table, place: Place) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if place == "map":
        return table["x"].to_numpy().astype(np.float64), table["y"].to_numpy().astype(np.float64)
    embedding = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    last = embedding.shape[1] - 1
    return embedding[:, min(1, last)].astype(np.float64), embedding[:, min(2, last)].astype(np.float64)


def _density(places: NDArray[np.float64], n_rows: int) -> Density:
    counts = np.histogram2d(places[:, 0], places[:, 1], bins=DENSITY_SIDE, range=[[0, 1], [0, 1]])[0].T
    return Density(side=DENSITY_SIDE, counts=counts.astype(int).ravel().tolist(), n_rows=n_rows)


def _named(labels: pa.ChunkedArray) -> list[Any]:
    """Return labels as they are; where some are missing, all as text."""
    named: list[Any] = (labels.cast(pa.string()).fill_null("no label") if labels.null_count else labels).to_pylist()
    return named


def _read(
    output: Artifact,
    manifest: Manifest,
    chosen: NDArray[np.int64],
    starts: Sequence[int],
    picks: NDArray[np.int64],
    columns: Sequence[str],
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return columns of the rows picked, and the numbers (S,) of these in the whole output.

    Args:
        output: artifact.
        manifest: of it.
        chosen: numbers of the shards that may be opened.
        starts: first row of every shard.
        picks: (S,) ascending, numbered over the chosen shards.
        columns: to read.
    """
    tables, rows, first = [], [], 0
    for index in chosen:
        shard = manifest.shards[index]
        local = picks[(picks >= first) & (picks < first + shard.n_rows)] - first
        first += shard.n_rows
        if len(local):
            tables.append(_read_rows(output, shard.name, local, columns))
            rows.append(local + starts[index])
    return pa.concat_tables(tables), np.concatenate(rows)


def _read_rows(output: Artifact, name: str, rows: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
    """Return columns of ascending local rows (S,); only their row groups are read."""
    tables = []
    with output.filesystem.open_input_file(output.file_path(name)) as stream:
        file = pq.ParquetFile(stream)
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            here = rows[(rows >= start) & (rows < stop)] - start
            start = stop
            if len(here):
                tables.append(file.read_row_group(group, columns=list(columns)).take(here))
    return pa.concat_tables(tables)
