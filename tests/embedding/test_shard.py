"""One shard through the model: what is written does not depend on how it is cut, and little is held at a time."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.embedding.columns import RowColumns, columns_of
from distspectral.embedding.loading import Loader
from distspectral.embedding.shard import RowSample, Written, embed_shard
from distspectral.embedding.stream import IN_FLIGHT
from distspectral.errors import OutputNotWritableError
from distspectral.models.embedder import Embedder
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.block import Block
from distspectral.storage.source.shards import ShardReader
from tests.runs import DIM
from tests.stages.chain import opened


@pytest.fixture(scope="module")
def finished(finished_run):
    return opened(finished_run)


def embedded(finished, folder, reader: ShardReader | None = None, batch_rows: int = 7, **options: Any) -> Written:
    """Embed the run's first shard, of 50 rows, once more."""
    network = load_calibrated_network(finished.chain.artifact("calibrate"))
    assigner = load_assigner(finished.chain.artifact("cluster"))
    columns = RowColumns(Embedder(network, assigner), columns_of("auto", has_map=False), 2)
    item = ("part-00000.parquet", finished.source.shards[0], "print")
    reader = reader or finished.source.reader
    loader = Loader((str(folder),), lambda: columns)
    return embed_shard(reader, loader, "cpu", Artifact(str(folder)), batch_rows, 0.0, item, **options)


def test_batches_and_row_groups_do_not_change_what_is_written(finished, tmp_path):
    embedded(finished, tmp_path, group_bytes=600)
    name = "part-00000.parquet"
    part, expected = (pq.read_table(f"{one}/{name}") for one in (tmp_path, finished.chain.artifact("embed").path))
    assert part["id"] == expected["id"]
    assert part["cluster"] == expected["cluster"]
    np.testing.assert_allclose(part["embedding"].to_pylist(), expected["embedding"].to_pylist(), rtol=1e-4, atol=1e-5)
    n_groups = pq.ParquetFile(tmp_path / name).num_row_groups
    assert 2 <= n_groups <= 6, "batches of 7 rows are gathered, 600 bytes hold about 20"


@dataclasses.dataclass(frozen=True)
class Watched(Block):
    """Calls ``written`` when the writer asks for the ids."""

    written: Callable[[], None] = lambda: None

    def global_ids(self, shard_first_row: int) -> pa.Array:
        self.written()
        return super().global_ids(shard_first_row)


@dataclasses.dataclass(frozen=True)
class WatchedReader(ShardReader):
    """Calls ``read`` after each block that it reads, and ``written`` when that block is written."""

    read: Callable[[], None] = lambda: None
    written: Callable[[], None] = lambda: None

    def read_blocks(self, *arguments: Any, **keywords: Any) -> Iterator[Block]:
        for block in super().read_blocks(*arguments, **keywords):
            self.read()
            yield Watched(**vars(block), written=self.written)


def test_few_batches_are_in_flight_however_slow_the_writer_is(finished, tmp_path):
    """The writer fails only once all is read that is read ahead of it; by the end, no reader is left to read more."""
    ahead = 2 * IN_FLIGHT + 1
    n_read, is_read = 0, threading.Event()

    def noted() -> None:
        nonlocal n_read
        n_read += 1
        if n_read == ahead:
            is_read.set()

    def full() -> None:
        assert is_read.wait(60)
        raise OSError(28, "No space left on device")

    reader = WatchedReader(**vars(finished.source.reader), read=noted, written=full)
    with pytest.raises(OutputNotWritableError):
        embedded(finished, tmp_path, reader, 2)
    assert n_read == ahead


def test_what_the_writer_meets_ends_the_shard(finished, tmp_path):
    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputNotWritableError, match="no space left"):
        embedded(finished, tmp_path, WatchedReader(**vars(finished.source.reader), written=full), 2)
    assert not list(tmp_path.glob("*.parquet"))


def test_a_sample_holds_the_chosen_rows_wherever_blocks_are_cut(finished):
    shard = finished.source.shards[0]
    chosen = []
    for block_rows in (3, 50):
        sample = RowSample(shard, 11)
        for block in finished.source.read_blocks(shard, block_rows):
            sample.take(block)
        chosen.append(sample.vectors(DIM))
    assert chosen[0].shape == (11, DIM)
    np.testing.assert_array_equal(*chosen)
