"""Arrays of equal length as one Arrow IPC file: fixed-size lists in record batches that can be read one by one.

Shape letters: B rows, K values of a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard

Columns = Mapping[str, NDArray[Any]]
"""Arrays (B,) or (B, K) by name."""


def write_arrays(
    artifact: Artifact,
    name: str,
    batches: Iterable[Columns],
    details: dict[str, Any] | None = None,
    metadata: Mapping[str, NDArray[np.int64]] | None = None,
) -> Shard:
    """Write one shard and its receipt; every item of ``batches`` becomes a record batch.

    Args:
        artifact: the directory.
        name: of the file.
        batches: at least one; all with the same columns, in memory one at a time.
        details: facts for the receipt.
        metadata: small integer arrays kept in the file's schema.
    """
    rows = [0]

    def write(stream: IO[bytes]) -> None:
        writer = None
        for columns in batches:
            batch = pa.record_batch({key: _column(array) for key, array in columns.items()})
            if writer is None:
                schema = batch.schema.with_metadata({k: v.astype("<i8").tobytes() for k, v in (metadata or {}).items()})
                writer = pa.ipc.new_file(stream, schema)
            writer.write_batch(batch)
            rows[0] += batch.num_rows
        assert writer is not None, "a shard has at least one batch"
        writer.close()

    n_bytes = artifact.write_file(name, write)
    return artifact.write_receipt(Shard(name=name, n_rows=rows[0], n_bytes=n_bytes, details=details or {}))


class ArraysReader:
    """An open file of :func:`write_arrays`; memory-mapped where it is local, else fetched batch by batch."""

    def __init__(self, artifact: Artifact, name: str) -> None:
        self._reader = pa.ipc.open_file(artifact.open_mapped(name))

    def metadata(self, key: str) -> NDArray[np.int64]:
        """Return an array of the file's schema."""
        return np.frombuffer(self._reader.schema.metadata[key.encode()], dtype="<i8")

    @property
    def n_batches(self) -> int:
        """How many batches the file has."""
        return int(self._reader.num_record_batches)

    def batch(self, index: int) -> dict[str, NDArray[Any]]:
        """Return the arrays of one batch, views of the file where it is mapped."""
        batch = self._reader.get_batch(index)
        return {key: _array(batch.column(key)) for key in batch.schema.names}


def _column(array: NDArray[Any]) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def _array(column: pa.Array) -> NDArray[Any]:
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    array: NDArray[Any] = flat.to_numpy(zero_copy_only=True)
    return array if flat is column else array.reshape(len(column), -1)
