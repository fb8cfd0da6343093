from __future__ import annotations

from pathlib import Path
from typing import IO

from distspectral.storage.artifact.receipts import read_receipts, write_shard
from tests.storage.outputs import output, three_bytes


def test_shard_may_fill_in_its_details_while_it_is_written(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.begin()
    details: dict[str, int] = {}

    def write(stream: IO[bytes]) -> int:
        details["seen"] = 3
        return three_bytes(stream)

    written = write_shard(out.artifact, "a", write, details)
    assert (written.n_rows, written.n_bytes, written.details) == (3, 3, {"seen": 3})
    assert read_receipts(out.artifact) == {"a": written}


def test_receipt_without_its_shard_does_not_count(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.begin()
    for name in ("a", "b", "c"):
        write_shard(out.artifact, name, three_bytes)
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_bytes(b"ab")
    assert set(read_receipts(out.artifact)) == {"c"}
