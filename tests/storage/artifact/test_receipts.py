from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.receipts import read_receipts, write_missing, write_shard
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


def write_item(artifact: Artifact, item: tuple[str, int]) -> Shard:
    name, number = item
    return write_shard(artifact, name, three_bytes, {"number": number})


def test_only_shards_that_are_missing_are_written_and_all_returned_in_order(tmp_path: Path) -> None:
    asked: list[Any] = []

    def backwards(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        asked.append((description, on_gpu, list(items)))
        return map(function, reversed(items))

    out = output(tmp_path)
    done, task = out.begin(), functools.partial(write_item, out.artifact)
    done["b"] = task(("b", 1))
    items = [("c", 2), ("b", 3), ("a", 4)]
    shards = write_missing(done, backwards, task, items, "writing", on_gpu=True)
    assert [(shard.name, shard.details["number"]) for shard in shards] == [("c", 2), ("b", 1), ("a", 4)]
    assert asked == [("writing", True, [("c", 2), ("a", 4)])]
    assert done == read_receipts(out.artifact)
    assert write_missing(done, backwards, task, items, "writing") == shards
    assert len(asked) == 1, "nothing is missing, so nobody is asked"
