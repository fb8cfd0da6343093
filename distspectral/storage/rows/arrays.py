"""Arrays of equal length as Arrow files: record batches of one table, or pieces of which each is read alone.

Shape letters: B rows, K values of a list, F files, P pieces of a file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple

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

OFFSETS = "offsets"
READERS = 16
"""Requests under way at once where files are remote: one waits for most of its time."""


def write_arrays(
    artifact: Artifact, name: str, batches: Iterable[Arrays], details: dict[str, Any] | None = None
) -> Shard:
    """Write one shard and its receipt; every item of ``batches`` becomes a record batch.

    Args:
        artifact: the directory.
        name: of the file.
        batches: at least one; all with the same columns, in memory one at a time.
        details: facts for the receipt.
    """

    def write(stream: IO[bytes]) -> int:
        n_rows, writer = 0, None
        for arrays in batches:
            batch = _batch(arrays)
            if writer is None:
                writer = pa.ipc.new_file(stream, batch.schema)
            writer.write_batch(batch)
            n_rows += batch.num_rows
        assert writer is not None, "a shard has at least one batch"
        writer.close()
        return n_rows

    return write_shard(artifact, name, write, details)


class Piece(NamedTuple):
    """Where one piece of a file of :func:`write_pieces` lies: bytes ``start`` to ``stop``."""

    name: str
    start: int
    stop: int


def write_pieces(
    artifact: Artifact, name: str, pieces: Iterable[Arrays], details: dict[str, Any] | None = None
) -> Shard:
    """Write one shard of pieces and its receipt, which says where each lies (see :func:`piece_offsets`).

    A piece is an Arrow IPC stream of its own, so that its bytes suffice to read it; one without rows takes none.

    Args:
        artifact: the directory.
        name: of the file.
        pieces: in memory one at a time; each may have columns of its own.
        details: facts for the receipt.
    """
    facts = dict(details or {})

    def write(stream: IO[bytes]) -> int:
        offsets, n_rows = [0], 0
        for arrays in pieces:
            batch = _batch(arrays)
            if batch.num_rows:
                with pa.ipc.new_stream(stream, batch.schema) as writer:
                    writer.write_batch(batch)
            offsets.append(stream.tell())
            n_rows += batch.num_rows
        facts[OFFSETS] = base64.b64encode(np.array(offsets, "<i8").tobytes()).decode()
        return n_rows

    return write_shard(artifact, name, write, facts)


def piece_offsets(shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Return (F, P + 1) offsets in bytes: piece p of a file lies between its p-th and the next."""
    return np.stack([np.frombuffer(base64.b64decode(shard.details[OFFSETS]), "<i8") for shard in shards])


def pieces_at(names: Sequence[str], places: NDArray[np.int64]) -> list[Piece]:
    """Return the pieces of files at ``places`` (F, 2); those without rows are left out."""
    listed = zip(names, places.tolist(), strict=True)
    return [Piece(name, start, stop) for name, (start, stop) in listed if start < stop]


def read_pieces(artifact: Artifact, pieces: Sequence[Piece]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the arrays of each piece, in order: views of the file where it is local, else one ranged read each."""
    if artifact.is_local:
        yield from (_read(artifact, piece) for piece in pieces)
        return
    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(lambda piece: _read(artifact, piece), pieces)


def _read(artifact: Artifact, piece: Piece) -> dict[str, NDArray[Any]]:
    path = artifact.file_path(piece.name)
    file = pa.memory_map(path) if artifact.is_local else artifact.filesystem.open_input_file(path)
    with file:
        file.seek(piece.start)
        content = file.read_buffer(piece.stop - piece.start)
    batch = pa.ipc.open_stream(content).read_next_batch()
    return {key: to_array(batch.column(key)) for key in batch.schema.names}


def _batch(arrays: Arrays) -> pa.RecordBatch:
    return pa.record_batch({key: to_column(array) for key, array in arrays.items()})
