from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from distspectral.storage.rows.block import Block
from distspectral.storage.rows.packed import PackedWriter

VECTORS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
LABELS = pa.array([f"label {row}" for row in range(40)])


def written(block_rows: int, batch_rows: int) -> bytes:
    """Return the packed shard of the rows, which come in blocks of that many and lie in batches of that many."""
    stream = io.BytesIO()
    with PackedWriter(stream, 40, 6, "float32", "int64", "string", batch_bytes=batch_rows * 6 * 4) as writer:
        for start in range(0, 40, block_rows):
            block = Block(VECTORS[start : start + block_rows], None, LABELS.slice(start, block_rows), start)
            writer.append(block, block.global_ids(1000))
    assert writer.moments is not None
    np.testing.assert_allclose(writer.moments.mean, VECTORS.mean(axis=0, dtype=np.float64), rtol=1e-12)
    return stream.getvalue()


@pytest.mark.parametrize("block_rows", [1, 5, 16, 17, 40])
def test_bytes_do_not_depend_on_how_blocks_are_cut(block_rows: int) -> None:
    content = written(block_rows, batch_rows=16)
    assert content == written(7, batch_rows=16)
    reader = pa.ipc.open_file(content)
    assert [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)] == [16, 16, 8]
    table = reader.read_all()
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), VECTORS)
    assert table["id"].to_pylist() == list(range(1000, 1040))
    assert table["label"].to_pylist() == LABELS.to_pylist()
