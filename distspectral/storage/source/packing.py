"""One source shard to one packed shard: what a task does, in a module that loads no network."""

from __future__ import annotations

from typing import IO, Any

import pyarrow as pa

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.quarantine import write_quarantine
from distspectral.storage.artifact.receipts import write_shard
from distspectral.storage.rows.frame import StoredType
from distspectral.storage.rows.ids import IdRange
from distspectral.storage.rows.packed import PackedWriter
from distspectral.storage.rows.shard_rows import layout
from distspectral.storage.source.shards import ShardReader, SourceShard


def pack_shard(reader: ShardReader, artifact: Artifact, dtype: StoredType, item: tuple[str, SourceShard]) -> Shard:
    """Write one packed shard and its receipt, whose details carry moments and the range of ids."""
    name, shard = item
    details: dict[str, Any] = {}

    def write(stream: IO[bytes]) -> int:
        ids = IdRange()
        id_type = reader.id_type or "int64"
        left_out: list[pa.RecordBatch] = []
        columns = dtype, id_type, reader.label_type
        with PackedWriter(stream, shard.n_rows, reader.dim, *columns) as writer:
            for block in reader.read_blocks(shard, left_out=left_out):
                block_ids = block.global_ids(shard.first_row)
                ids.update(block_ids)
                writer.append(block, block_ids)
        if (moments := writer.moments) is not None:
            details.update(moments.details() | ids.details())
        details.update(layout(stream, ["vector"]))
        details.update(write_quarantine(artifact, name, left_out))
        return moments.n_rows if moments else 0

    return write_shard(artifact, name, write, details)
