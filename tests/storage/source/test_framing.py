from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.framing import framed
from tests.datasets import as_lists, read_all, write_raw, write_table

RNG = np.random.default_rng(0)
SECONDS = np.stack([1.7e9 + np.arange(800) * 10, RNG.standard_normal(800)], axis=1)


def opened(path: Path, **config: Any) -> Source:
    return Source.open(SourceConfig(path=str(path), **config), most_rows=config.pop("most_rows", 1 << 22))


def write(path: Path, rows: np.ndarray) -> None:
    if path.suffix in (".npy", ".fbin"):
        write_raw(path, rows)
    else:
        write_table(path, {"vector": as_lists(rows, "list" if path.stem == "ragged" else "fixed")})


@pytest.mark.parametrize("name", ["a.parquet", "ragged.parquet", "a.arrow", "a.ipc", "a.npy"])
def test_the_frame_is_that_of_the_rows_in_every_format(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, SECONDS)
    source = framed(opened(tmp_path))
    assert source.reader.frame.properties() == Frame.of(SECONDS).properties()
    origin = source.reader.frame.origin
    assert origin is not None
    np.testing.assert_allclose(read_all(source) + origin, SECONDS, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seen_values", [160, 320])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.npy"])
def test_sorted_rows_are_looked_at_all_over(tmp_path: Path, name: str, seen_values: int) -> None:
    for part in range(2):
        write(tmp_path / f"{part}{name}", SECONDS[400 * part :][:400])
    frame = framed(opened(tmp_path), seen_values=seen_values).reader.frame
    assert frame.origin is not None
    assert 1.7e9 + 2000 < frame.origin[0] < 1.7e9 + 6000
    assert 2000 < frame.limit * 2.0**-24 < 8000, "how far rows usually are from the median"


def test_a_piece_is_looked_at_from_the_right_row_on(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SECONDS)
    source = Source.open(SourceConfig(path=str(tmp_path)), most_rows=100)
    assert len(source.shards) == 8
    frame = framed(source, seen_values=64).reader.frame
    assert frame.origin is not None
    assert 1.7e9 + 2000 < frame.origin[0] < 1.7e9 + 6000


def test_rows_that_cannot_be_used_are_passed_over(tmp_path: Path) -> None:
    rows: list[Any] = SECONDS.tolist()
    rows[1], rows[2], rows[3][1], rows[4][0] = None, [1.0], None, float("nan")
    write_table(tmp_path / "a.parquet", {"vector": pa.array(rows, pa.list_(pa.float64()))})
    source = framed(opened(tmp_path, on_bad_rows="quarantine"))
    assert source.reader.frame.properties() == Frame.of(SECONDS[[0, *range(5, 800)]]).properties()


def test_a_frame_that_takes_something_away_is_part_of_a_shards_identity(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SECONDS)
    source = opened(tmp_path)
    as_read, moved = source.shard_fingerprints(), framed(source).shard_fingerprints()
    assert moved != as_read
    assert source.framed(Frame(limit=7.0)).shard_fingerprints() == as_read


def test_float32_rows_in_an_ordinary_frame_are_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.standard_normal((50, 3)).astype(np.float32))
    source = framed(opened(tmp_path))
    (block,) = source.reader.read_blocks(source.shards[0], copy=False)
    assert not block.vectors.flags.owndata
