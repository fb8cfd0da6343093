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
from distspectral.storage.artifact.receipts import write_shard
from distspectral.storage.rows.columns import to_array, to_column

Arrays = Mapping[str, NDArray[Any]]
"""Arrays (B,) or (B, K) by name."""


def write_arrays(
    artifact: Artifact,
    name: str,
    batches: Iterable[Arrays],
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

    def write(stream: IO[bytes]) -> int:
        n_rows, writer = 0, None
        for arrays in batches:
            batch = pa.record_batch({key: to_column(array) for key, array in arrays.items()})
            if writer is None:
                schema = batch.schema.with_metadata({k: v.astype("<i8").tobytes() for k, v in (metadata or {}).items()})
                writer = pa.ipc.new_file(stream, schema)
            writer.write_batch(batch)
            n_rows += batch.num_rows
        assert writer is not None, "a shard has at least one batch"
        writer.close()
        return n_rows

    return write_shard(artifact, name, write, details)


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
        return {key: to_array(batch.column(key)) for key in batch.schema.names}
