"""The file format of packed vectors: uncompressed Arrow IPC, in record batches that can be memory-mapped.

Shape letters: B rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.block import Block
from distspectral.storage.rows.columns import ARROW_TYPES, ScalarType, to_column
from distspectral.storage.rows.frame import StoredType
from distspectral.storage.rows.moments import Moments
from distspectral.storage.rows.shard_rows import FETCH_THREADS

COLUMNS = ("id", "vector", "label")
"""In this order; the last one where there are labels."""

BATCH_BYTES = 256 << 20
"""Most bytes of vectors in a record batch unless the caller says otherwise."""

BATCH_ROWS = 1 << 22
"""Most rows in a record batch; keeps a batch of string ids below Arrow's 2 GiB."""


class PackedWriter:
    """Writes blocks to one packed shard; record batches do not depend on how the rows arrive in blocks.

    Args:
        stream: open binary file.
        n_rows: rows the shard will hold.
        dim: D.
        dtype: type of the stored values.
        id_type: type of the ids.
        label_type: type of the labels, None for none.
        batch_bytes: most bytes of vectors in a record batch.
    """

    def __init__(
        self,
        stream: IO[bytes],
        n_rows: int,
        dim: int,
        dtype: StoredType,
        id_type: ScalarType,
        label_type: ScalarType | None,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        value_type = pa.float32() if dtype == "float32" else pa.float16()
        types = [ARROW_TYPES[id_type], pa.list_(value_type, dim)]
        if label_type is not None:
            types.append(ARROW_TYPES[label_type])
        self._schema = pa.schema(list(zip(COLUMNS, types, strict=False)))
        batch_rows = max(1, min(n_rows, BATCH_ROWS, batch_bytes // (dim * np.dtype(dtype).itemsize)))
        self._vectors = np.empty((batch_rows, dim), dtype=dtype)
        self._n_filled = 0
        self._ids: list[pa.Array] = []
        self._labels: list[pa.Array] = []
        self._writer = pa.ipc.new_file(stream, self._schema)
        self.moments: Moments | None = None

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._n_filled:
            self._flush()
        self._writer.close()

    def append(self, block: Block, ids: pa.Array) -> None:
        """Add a block's rows.

        Args:
            block: rows with (B, D) vectors that fit the type.
            ids: (B,) ids of those rows.
        """
        start = 0
        while start < block.n_rows:
            stop = min(block.n_rows, start + len(self._vectors) - self._n_filled)
            stored = self._vectors[self._n_filled : self._n_filled + stop - start]
            stored[:] = block.vectors[start:stop]
            moments = Moments.of(stored)
            self.moments = self.moments.merge(moments) if self.moments else moments
            self._ids.append(ids.slice(start, stop - start))
            if block.labels is not None:
                self._labels.append(block.labels.slice(start, stop - start))
            self._n_filled += stop - start
            if self._n_filled == len(self._vectors):
                self._flush()
            start = stop

    def _flush(self) -> None:
        columns = [pa.concat_arrays(self._ids), to_column(self._vectors[: self._n_filled])]
        if self._labels:
            columns.append(pa.concat_arrays(self._labels))
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._n_filled = 0
        self._ids, self._labels = [], []


def read_column(artifact: Artifact, names: Sequence[str], column: str) -> pa.ChunkedArray:
    """Return the ids or labels of packed shards; memory-mapped where local, else that column alone is fetched.

    Args:
        artifact: the directory.
        names: of the shards, at least one.
        column: its name.
    """

    def read(name: str) -> pa.ChunkedArray:
        path = artifact.file_path(name)
        if artifact.is_local:  # included_fields would copy the column out of the map
            return pa.ipc.open_file(pa.memory_map(path)).read_all().column(column)
        only = pa.ipc.IpcReadOptions(included_fields=[COLUMNS.index(column)])
        return pa.ipc.open_file(artifact.filesystem.open_input_file(path), options=only).read_all()[column]

    with ThreadPoolExecutor(1 if artifact.is_local else FETCH_THREADS) as pool:
        columns = list(pool.map(read, names))
    return pa.chunked_array([chunk for one in columns for chunk in one.chunks], type=columns[0].type)
