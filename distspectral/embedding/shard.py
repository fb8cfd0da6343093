"""One shard through the model to one output shard, and what its receipt says.

Shape letters: B rows of a batch, D features, C clusters.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from distspectral.embedding.columns import RowColumns, record_batch
from distspectral.embedding.loading import Loader
from distspectral.embedding.stream import Clock, stream
from distspectral.models.networks import torch_device
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.output import SOURCE
from distspectral.storage.artifact.quarantine import write_quarantine
from distspectral.storage.artifact.receipts import write_shard
from distspectral.storage.rows.block import Block
from distspectral.storage.source.shards import ShardReader, SourceShard

GROUP_BYTES = 16 << 20

COMPRESSION: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["cluster", "leaf"],
    "write_statistics": ["id", "cluster", "leaf"],
}
"""Of 524,288 rows of 10 components: .41 us a row and 39.7 bytes; statistics of coordinates, which nobody filters by,
cost .06 us more. Without compression .23 and 54.3, snappy .33 and 46.8, byte streams split .43 and 37.3."""


@dataclasses.dataclass(frozen=True)
class Written:
    """One output shard.

    Attributes:
        shard: its receipt.
        sample: (n, D) float32 of its rows' vectors.
    """

    shard: Shard
    sample: NDArray[np.float32]


class RowSample:
    """Vectors of a seeded choice of a shard's rows, picked up as they pass.

    Args:
        shard: whose rows.
        n_rows: how many, at most.
    """

    def __init__(self, shard: SourceShard, n_rows: int) -> None:
        rng = np.random.default_rng([shard.first_row, shard.n_rows])
        self._rows = np.sort(rng.choice(shard.n_rows, min(n_rows, shard.n_rows), replace=False))
        self._found: list[NDArray[np.float32]] = []

    def take(self, block: Block) -> None:
        """Keep copies of those rows that are in the block."""
        if block.offsets is None:
            first, last = np.searchsorted(self._rows, [block.first_row, block.first_row + block.n_rows])
            places = self._rows[first:last] - block.first_row
        else:
            places = np.flatnonzero(np.isin(block.first_row + block.offsets, self._rows))
        if len(places):
            self._found.append(block.vectors[places])

    def vectors(self, dim: int) -> NDArray[np.float32]:
        """Return the rows found so far, (n, D)."""
        return np.concatenate([np.empty((0, dim), np.float32), *self._found])


class Tally:
    """What a shard's receipt says of its clusters: rows, summed distances, labels met.

    Args:
        n_clusters: C.
    """

    def __init__(self, n_clusters: int) -> None:
        self.counts, self.distances = np.zeros(n_clusters, np.int64), np.zeros(n_clusters)
        self.labels: Counter[tuple[int | str, int]] = Counter()

    def add(self, cluster: NDArray[np.int32], distance: NDArray[np.float32], labels: pa.Array | None) -> None:
        """Count a batch's rows; those that have no label count as rows only."""
        n_clusters = len(self.counts)
        self.counts += np.bincount(cluster, minlength=n_clusters)
        self.distances += np.bincount(cluster, weights=distance, minlength=n_clusters)
        if labels is not None and len(known := labels.drop_null()):
            cluster = cluster[labels.is_valid().to_numpy(zero_copy_only=False)]
            coded = pc.dictionary_encode(known)
            pairs = coded.indices.to_numpy().astype(np.int64) * n_clusters + cluster
            names = coded.dictionary.to_pylist()
            for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
                self.labels[names[pair // n_clusters], int(pair % n_clusters)] += int(count)

    def details(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "cluster_counts": self.counts.tolist(),
            "distance_sums": self.distances.tolist(),
            "label_counts": [[label, cluster, count] for (label, cluster), count in self.labels.items()],
        }


def embed_shard(
    reader: ShardReader,
    loader: Loader[RowColumns],
    device: str,
    artifact: Artifact,
    batch_rows: int,
    sample_share: float,
    item: tuple[str, SourceShard, str],
    *,
    group_bytes: int = GROUP_BYTES,
) -> Written:
    """Write one output shard and its receipt; return the receipt and a sample of the shard's vectors.

    Args:
        reader: of the source.
        loader: of the module.
        device: ``auto``, ``cpu`` or ``cuda``.
        artifact: that the shard goes into.
        batch_rows: B.
        sample_share: of the shard's rows.
        item: the output shard's name, the source shard and its fingerprint.
        group_bytes: of output in a Parquet row group, about.
    """
    name, shard, source = item
    where = torch_device(device)
    columns = loader.on(where)
    sample = RowSample(shard, int(np.ceil(sample_share * shard.n_rows)))
    tally, clock = Tally(len(columns.embedder.assigner.centroids)), Clock()
    details: dict[str, Any] = {SOURCE: source}
    left_out: list[pa.RecordBatch] = []

    def write(sink: IO[bytes]) -> int:
        # a GPU computes faster than one thread decodes; a CPU, whose threads are busy, does not
        n_threads = 1 if where.type == "cpu" else torch.get_num_threads()
        blocks = reader.read_blocks(shard, batch_rows, left_out, copy=False, n_threads=n_threads)
        schema = columns.schema(reader.id_type or "int64")
        carried = reader.carried or pa.schema([])
        with pq.ParquetWriter(sink, pa.schema([*schema, *carried]), **_compression(carried.names)) as writer:
            groups = _RowGroups(writer, group_bytes)

            def put(block: Block, made: dict[str, NDArray[Any]]) -> None:
                tally.add(made["cluster"], made["distance"], block.labels)
                sample.take(block)
                batch = record_batch(schema, block.global_ids(shard.first_row), made)
                groups.append(batch if block.carried is None else _side_by_side(batch, block.carried))

            stream(blocks, columns, put, where, clock)
            clock.timed("write", groups.flush)
        details.update(tally.details(), seconds=clock.seconds, **write_quarantine(artifact, name, left_out))
        return int(tally.counts.sum())

    receipt = write_shard(artifact, name, write, details)
    return Written(receipt, sample.vectors(reader.dim))


def _compression(carried: Sequence[str]) -> dict[str, Any]:
    """Return :data:`COMPRESSION`, carried columns with what Parquet gives by default."""
    named = {key: [*COMPRESSION[key], *carried] for key in ("use_dictionary", "write_statistics")}
    return COMPRESSION | named


def _side_by_side(batch: pa.RecordBatch, other: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns of both, with the same rows."""
    return pa.record_batch([*batch.columns, *other.columns], schema=pa.schema([*batch.schema, *other.schema]))


class _RowGroups:
    """Batches gathered into row groups of a fair size, however small they come."""

    def __init__(self, writer: pq.ParquetWriter, group_bytes: int) -> None:
        self._writer, self._group_bytes, self._bytes = writer, group_bytes, 0
        self._batches: list[pa.RecordBatch] = []

    def append(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= self._group_bytes:
            self.flush()

    def flush(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._batches, self._bytes = [], 0
