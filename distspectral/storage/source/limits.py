"""What no honest shard claims: widths, row counts and expansions beyond which a file is damaged or hostile.

Looked at before a row is read, so that a few bytes cannot ask for all memory, all disk or all time.
"""

from __future__ import annotations

from typing import Any

from distspectral.errors import AbsurdShardError, CorruptShardError
from distspectral.storage.source.listing import ShardFile

MAX_DIM = 1 << 20
"""Most features of a row; a single float32 row of more would fill 4 MiB."""

MAX_EXPANSION = 10_000
"""Most bytes of vectors per byte of file; beyond what zstd makes of one-hot rows."""

HARMLESS_BYTES = 1 << 30
"""Vectors of less are read whatever the expansion."""

MAX_REMOTE_GROUP_BYTES = 4 << 30
"""A remote row group is fetched whole."""


def refuse_absurd_width(file: ShardFile, dim: int) -> None:
    """Refuse vectors that are too wide.

    Raises:
        AbsurdShardError: just that.
    """
    if dim > MAX_DIM:
        raise AbsurdShardError(
            f"{file.uri}: vectors have width {dim:,}, expected at most {MAX_DIM:,}; the header may be damaged, or "
            "data.column or data.format name something else",
            parameters=["data.column", "data.format"],
        )


def refuse_bomb(file: ShardFile, n_rows: int, dim: int) -> None:
    """Refuse a file that claims far more vectors than its bytes can hold.

    Raises:
        AbsurdShardError: just that.
    """
    n_bytes = 4 * n_rows * dim
    if n_bytes > HARMLESS_BYTES and n_bytes > MAX_EXPANSION * file.size:
        raise AbsurdShardError(
            f"{file.uri}: claims {n_rows:,} rows of width {dim:,}, {n_bytes / 2**30:,.1f} GiB out of a file of "
            f"{file.size:,} bytes ({n_bytes / file.size:,.0f} times its size, expected at most {MAX_EXPANSION:,}); "
            "the file is damaged or a decompression bomb: if its rows are meant so, write it uncompressed"
        )


def refuse_absurd_groups(file: ShardFile, metadata: Any) -> None:
    """Refuse a Parquet footer whose row groups contradict it, or are too large to fetch.

    Args:
        file: the shard.
        metadata: a ``pyarrow.parquet.FileMetaData``.

    Raises:
        CorruptShardError: row groups do not add up.
        AbsurdShardError: a remote row group does not fit into memory.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    counts = [group.num_rows for group in groups]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise CorruptShardError(
            f"{file.uri}: the footer counts {metadata.num_rows:,} rows, its {len(groups):,} row groups "
            f"{sum(counts):,}; write the shard again"
        )
    if file.is_local:
        return  # mapped: pages are decoded one by one
    for index, group in enumerate(groups):
        n_bytes = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
        if n_bytes > MAX_REMOTE_GROUP_BYTES:
            raise AbsurdShardError(
                f"{file.uri}: row group {index} has {n_bytes / 2**30:,.1f} GiB and would be fetched whole, expected at "
                f"most {MAX_REMOTE_GROUP_BYTES >> 30} GiB; write smaller row groups or copy the shard to a local disk"
            )
