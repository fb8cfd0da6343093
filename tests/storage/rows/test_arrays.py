from __future__ import annotations

import numpy as np
import pyarrow.ipc

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.arrays import Piece, piece_offsets, pieces_at, read_pieces, write_arrays, write_pieces
from tests.storage.counting import counting


def some(*sizes):
    rng = np.random.default_rng(0)
    return [{"row": np.arange(n), "vector": rng.standard_normal((n, 3)).astype(np.float16)} for n in sizes]


def test_batches_become_one_table(tmp_path):
    batches = some(4, 1, 7)
    shard = write_arrays(Artifact(str(tmp_path)), "a.arrow", iter(batches), {"kept": 1})
    assert (shard.n_rows, shard.details) == (12, {"kept": 1})
    assert shard.n_bytes == (tmp_path / "a.arrow").stat().st_size
    table = pyarrow.ipc.open_file(tmp_path / "a.arrow").read_all()
    assert table["row"].to_pylist() == [*range(4), 0, *range(7)]


def test_pieces_come_back_one_by_one_from_where_the_receipt_says(tmp_path):
    artifact, written = Artifact(str(tmp_path)), some(4, 0, 1, 7)
    shard = write_pieces(artifact, "a.arrow", iter(written), {"kept": 1})
    assert (shard.n_rows, shard.details["kept"]) == (12, 1)
    offsets = piece_offsets([shard])
    assert offsets.shape == (1, 5)
    assert offsets[0, 1] == offsets[0, 2]
    assert offsets[0, -1] == shard.n_bytes
    pieces = [piece for index in range(4) for piece in pieces_at(["a.arrow"], offsets[:, index : index + 2])]
    assert [type(piece) for piece in pieces] == [Piece] * 3
    for piece, arrays in zip(read_pieces(artifact, pieces[::-1]), (written[3], written[2], written[0]), strict=True):
        for key, column in piece.items():
            np.testing.assert_array_equal(column, arrays[key])
            assert column.dtype == arrays[key].dtype


def test_a_remote_piece_is_one_open_and_one_read_of_its_bytes(tmp_path):
    artifact, counter = counting(Artifact(str(tmp_path)))
    shard = write_pieces(artifact, "a.arrow", some(100, 5, 1000))
    offsets = piece_offsets([shard])
    counter.clear()
    (found,) = read_pieces(artifact, pieces_at(["a.arrow"], offsets[:, 1:3]))
    assert len(found["row"]) == 5
    assert counter == {"opened": 1, "read": 1, "bytes": offsets[0, 2] - offsets[0, 1]}
