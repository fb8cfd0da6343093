"""One shard of the source, streamed as float32 blocks; rows that cannot be used are an error or left out.

Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distspectral.errors import CorruptShardError, SourceError
from distspectral.storage.rows.block import Block
from distspectral.storage.rows.columns import ScalarType
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.bad_rows import find_bad_rows, readable_ids
from distspectral.storage.source.carried import carried_columns
from distspectral.storage.source.columns import Columns, to_matrix, to_scalars
from distspectral.storage.source.formats import FORMATS, FormatName, Threads, reading
from distspectral.storage.source.listing import ShardFile

BLOCK_BYTES = 16 << 20
"""Size of a block's float32 vectors unless the caller says otherwise."""

DECODED_BYTES = 1 << 30
"""Of float32 vectors that several threads hold decoded; row groups of which two would be more are streamed by one."""

BadRowPolicy = Literal["error", "quarantine"]


@dataclasses.dataclass(frozen=True)
class SourceShard:
    """One file whose header has been read, or a piece of a large one.

    Attributes:
        file: where it is.
        format: how to read it.
        n_rows: its rows.
        first_row: number of its first row in the whole dataset.
        file_row: the file's row that it begins with, as messages count.
        parts: the parts of the file that it consists of, as its format counts them: row groups, record batches or
            rows; None for the whole file.
    """

    file: ShardFile
    format: FormatName
    n_rows: int
    first_row: int
    file_row: int = 0
    parts: range | None = None

    @property
    def uri(self) -> str:
        """Path or URI, as messages name it."""
        return self.file.uri


@dataclasses.dataclass(frozen=True)
class ShardReader:
    """What a task needs to read any one shard: small, picklable, holds no open files.

    Attributes:
        columns: names of the columns to read.
        frame: where the rows lie.
        dim: D, which every row must have.
        id_type: type of the ids read, None without an id column.
        label_type: type of the labels read, None without a label column.
        on_bad_rows: whether a row that cannot be used is an error or is left out.
        carried: columns that blocks take over, which ``columns`` names, too; None takes over none.
    """

    columns: Columns
    frame: Frame
    dim: int
    id_type: ScalarType | None
    label_type: ScalarType | None
    on_bad_rows: BadRowPolicy = "error"
    carried: pa.Schema | None = None

    def read_blocks(
        self,
        shard: SourceShard,
        block_rows: int | None = None,
        left_out: list[pa.RecordBatch] | None = None,
        copy: bool = True,
        n_threads: int = 1,
    ) -> Iterator[Block]:
        """Stream a shard in row order, holding about one block at a time.

        A compressed Arrow record batch is the least that can be decompressed, so it bounds memory from below.

        Args:
            shard: one of ``Source.shards``.
            block_rows: most rows in a block; by default as many as fill 16 MiB.
            left_out: tables of the rows left out are appended here, see ``BadRows.table``.
            copy: whether vectors that need no conversion are copied, or read-only views of what was read.
            n_threads: that decode Parquet, a row group each; several hold up to 1 GiB of vectors between them.

        Raises:
            CorruptShardError: the shard cannot be parsed, or holds other rows than its header says.
            ShardWidthError: a row has another width than D.
            NonFiniteRowError: a value is NaN, infinite, or beyond float32 in this frame.
            SourceError: a vector or id is null.

        The last three only where ``on_bad_rows`` is ``error``.
        """
        rows = block_rows or max(1, BLOCK_BYTES // (4 * self.dim))
        threads = Threads(n_threads, DECODED_BYTES // (4 * self.dim))
        batches = FORMATS[shard.format].batches(shard.file, self.columns, rows, shard.parts, threads)
        first_row = 0
        while True:
            with reading(shard.file, shard.format):
                batch = next(batches, None)
            if batch is None:
                break
            if batch.num_rows:
                block = self._usable(batch, shard, first_row, left_out, copy)
                if block is not None:
                    yield block
            first_row += batch.num_rows
        if first_row != shard.n_rows:
            raise CorruptShardError(
                f"{shard.uri}: holds {first_row} rows, but {shard.n_rows} when it was opened; leave shards alone "
                "during a run"
            )

    def _block(
        self,
        batch: pa.RecordBatch,
        shard: SourceShard,
        first_row: int,
        copy: bool,
        offsets: NDArray[np.int64] | None = None,
    ) -> Block:
        """Return a batch as a block.

        Raises:
            SourceError: a row cannot be used.
        """
        columns = self.columns
        vectors = batch.column(columns.vector)
        uri, file_row = shard.uri, shard.file_row + first_row
        matrix = to_matrix(
            vectors,
            self.dim,
            self.frame,
            name=columns.vector,
            uri=uri,
            first_row=file_row,
            copy=copy,
            features=lambda: columns.joined_in(batch),
        )
        ids = self._scalars(batch, columns.id, self.id_type, uri, file_row)
        labels = self._scalars(batch, columns.label, self.label_type, uri, file_row, may_lack=True)
        carried = None if self.carried is None else carried_columns(batch, self.carried, uri)
        return Block(matrix, ids, labels, first_row, offsets, carried)

    def _usable(
        self,
        batch: pa.RecordBatch,
        shard: SourceShard,
        first_row: int,
        left_out: list[pa.RecordBatch] | None,
        copy: bool,
    ) -> Block | None:
        """Return the rows of a batch that can be used, None without any; a table of the others goes to ``left_out``.

        Raises:
            SourceError: a row cannot be used, and that is an error.
        """
        try:
            return self._block(batch, shard, first_row, copy)
        except SourceError:
            if self.on_bad_rows == "error":
                raise
        bad = find_bad_rows(batch, self.columns, self.dim, self.frame, self.id_type, self.label_type)
        if left_out is not None:
            ids = readable_ids(batch, self.columns, self.id_type, shard.first_row + first_row)
            left_out.append(bad.table(ids, shard.file_row + first_row, shard.uri))
        good = np.delete(np.arange(batch.num_rows, dtype=np.int64), bad.rows)
        return self._block(batch.take(pa.array(good)), shard, first_row, copy, good) if len(good) else None

    @staticmethod
    def _scalars(
        batch: pa.RecordBatch,
        name: str | None,
        kind: ScalarType | None,
        uri: str,
        first_row: int,
        may_lack: bool = False,
    ) -> pa.Array | None:
        if name is None or kind is None:
            return None
        return to_scalars(batch.column(name), kind, name=name, uri=uri, first_row=first_row, may_lack=may_lack)
