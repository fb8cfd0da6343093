"""Datasets and shards for tests: seeded blobs, uneven shards, files in every source format, packed artifacts."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.datasets import write_vectors
from distspectral.mapping import Mapper, local_map
from distspectral.stages.pack import PackConfig, pack
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source, SourceConfig

UNEVEN = (1, 40, 7, 52)
"""Sizes of four shards that together hold 100 rows."""


def blobs(n_rows: int, dim: int, n_clusters: int = 3, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return well separated Gaussian blobs: vectors (N, D) float32 and labels (N,), rows shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_clusters, n_rows)
    centers = 8 * rng.standard_normal((n_clusters, dim))
    return (centers[labels] + rng.standard_normal((n_rows, dim))).astype(np.float32), labels.astype(np.int64)


def ring_and_blobs(
    on_ring: int = 300, in_blob: int = 20, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a ring and two far blobs, three parts of uneven size: vectors (N, 2) float32 and labels (N,), shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1, 2], [on_ring, in_blob, in_blob]))
    angle = rng.uniform(0, 2 * np.pi, len(labels))
    ring = 5 * np.column_stack([np.cos(angle), np.sin(angle)])
    centres = np.array([[0.0, 0.0], [12.0, 0.0], [-12.0, 0.0]])[labels]
    noise = rng.normal(size=(len(labels), 2)) * np.where(labels == 0, 0.1, 0.3)[:, None]
    return (centres + ring * (labels == 0)[:, None] + noise).astype(np.float32), labels.astype(np.int64)


def drowned(n_rows: int, dim: int) -> NDArray[np.float32]:
    """Return logarithms of counts (N, D) of five kinds of rows, each marked by a few features below much noise."""
    rng = np.random.default_rng(0)
    marks = np.where(rng.random((5, dim)) < 0.04, rng.lognormal(0.9, 0.5, (5, dim)), 1)
    kinds = rng.lognormal(-1, 1, dim) * marks
    depth = rng.lognormal(0, 0.3, (n_rows, 1))
    rows: NDArray[np.float32] = np.log1p(rng.poisson(kinds[rng.integers(0, 5, n_rows)] * depth)).astype(np.float32)
    return rows


def as_lists(matrix: NDArray[Any], kind: str = "fixed") -> pa.Array:
    """Return a matrix as a FixedSizeList, List or LargeList column."""
    values = pa.array(matrix.reshape(-1))
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(values, matrix.shape[1])
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1])
    if kind == "list":
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Write a table as the path's extension says: .parquet, .arrow (IPC file) or .ipc (IPC stream)."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=16)
        return
    opener = pa.ipc.new_stream if path.suffix == ".ipc" else pa.ipc.new_file
    with opener(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)


def write_raw(path: Path, matrix: NDArray[Any]) -> None:
    """Write a matrix as .npy or .fbin."""
    if path.suffix == ".npy":
        np.save(path, matrix)
    else:
        path.write_bytes(struct.pack("<II", *matrix.shape) + matrix.astype("<f4").tobytes())


def read_all(source: Source, block_rows: int | None = None) -> NDArray[np.float32]:
    """Return all vectors of a source as one (N, D) matrix."""
    blocks = [block.vectors for shard in source.shards for block in source.read_blocks(shard, block_rows)]
    return np.concatenate(blocks)


def vectors_output(folder: Path | str, source: Source, config: PackConfig | None = None) -> Output:
    """Return the output of the stage ``pack`` for a source."""
    values = (config or PackConfig()).model_dump()
    inputs = {"source": source.fingerprint()}
    return Output(Artifact(str(folder)), "pack", fingerprint("pack", values, inputs), values, inputs)


def packed(
    folder: Path,
    vectors: NDArray[Any],
    *,
    labels: NDArray[Any] | None = None,
    ids: NDArray[Any] | None = None,
    sizes: Sequence[int] | None = None,
    config: PackConfig | None = None,
    mapper: Mapper = local_map,
) -> Artifact:
    """Write arrays as shards under ``folder/source`` and pack them; return the artifact ``folder/vectors``."""
    write_vectors(str(folder / "source"), vectors, labels=labels, ids=ids, sizes=sizes)
    source = Source.open(
        SourceConfig(
            path=str(folder / "source"),
            id_column=None if ids is None else "id",
            label_column=None if labels is None else "label",
        )
    )
    output = vectors_output(folder / "vectors", source, config)
    pack(source, output, config or PackConfig(), mapper)
    return output.artifact


def npy_claiming(shape: str, values: NDArray[Any], dtype: str = "'<f4'") -> bytes:
    """Return a .npy file of values whose header claims a shape and a type, both as Python writes them."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values.tobytes()


def hard_parts(n_clusters: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return rows and labels of three far parts of Gaussian clusters, the largest ten times the smallest.

    Beside them lie rows between the clusters of a part, which are near to many, and a fifth of all are exact copies.
    """
    rng, dim = np.random.default_rng(seed), 16
    sizes = rng.permutation(np.geomspace(40, 400, n_clusters).astype(int))
    centres = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:n_clusters] * 5
    parts = np.arange(n_clusters) % 3
    centres[np.arange(n_clusters), parts] += 80
    labels = np.repeat(np.arange(n_clusters), sizes)
    rows = centres[labels] + rng.normal(size=(len(labels), dim))
    hubs = np.concatenate([centres[parts == part].mean(0) + 0.1 * rng.normal(size=(3, dim)) for part in range(3)])
    rows, labels = np.vstack([rows, hubs]), np.append(labels, np.repeat(np.arange(3), 3))
    kept = np.where(rng.random(len(rows)) < 0.2, rng.integers(0, len(rows), len(rows)), np.arange(len(rows)))
    return rows[kept].astype(np.float32), labels[kept]
