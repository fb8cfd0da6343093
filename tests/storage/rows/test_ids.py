from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distspectral.errors import DuplicateIdError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows import ids as module
from distspectral.storage.rows.ids import IdRange, refuse_duplicates
from tests.datasets import packed


def seen(*parts: list[Any]) -> IdRange:
    ids = IdRange()
    for part in parts:
        ids.update(pa.array(part))
    return ids


@pytest.mark.parametrize(
    ("parts", "low", "high", "is_increasing"),
    [
        (([1, 2, 5], [6, 9]), 1, 9, True),
        (([1, 2, 5], [5, 9]), 1, 9, False),  # the last of one block is the first of the next
        (([1, 2, 5], [0, 3]), 0, 5, False),
        (([3, 3],), 3, 3, False),
    ],
)
def test_order_is_followed_across_blocks(parts: list[list[int]], low: int, high: int, is_increasing: bool) -> None:
    assert seen(*parts).details() == {"id_low": low, "id_high": high, "ids_increase": is_increasing}


def shards_of(folder: Path, ids: np.ndarray) -> tuple[Artifact, list[Shard]]:
    rows = np.random.default_rng(0).standard_normal((len(ids), 3))
    artifact = packed(folder, rows, ids=ids, sizes=(40, 30, 30))
    parts = [seen(part.tolist()).details() for part in np.split(ids, [40, 70])]
    pairs = zip(artifact.manifest().shards, parts, strict=True)
    return artifact, [shard.model_copy(update={"details": details}) for shard, details in pairs]


def test_ids_that_must_be_compared_are_dealt_and_sorted_in_tasks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 20)
    ids = np.array([f"{row:03d}" for row in [*range(40), *np.random.default_rng(0).permutation(range(40, 100))]])
    artifact, shards = shards_of(tmp_path, ids)
    handed_out = {}

    def mapper(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        handed_out[description] = list(items)
        for result in map(pickle.loads(pickle.dumps(function)), reversed(items)):
            assert len(pickle.dumps(result)) < 600, "all that a task returns"
            yield result

    refuse_duplicates(artifact, shards, [("a", 0), ("b", 0), ("c", 0)], mapper)
    assert [name for name, *_ in handed_out["comparing ids"]] == ["part-00001.arrow", "part-00002.arrow"]
    assert list(handed_out) == ["comparing ids", "sorting ids"]
    sorted_parts = handed_out["sorting ids"]
    assert len(sorted_parts) == 3
    assert all(len(pieces) == 2 for pieces in sorted_parts), "each part has digests of either shard"
    assert not artifact.child(module.FOLDER).exists()


@pytest.mark.parametrize("as_text", [True, False])
def test_a_repeated_id_is_found_in_whatever_part_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_text: bool
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 7)
    numbers = np.random.default_rng(1).permutation(100)
    numbers[83] = numbers[12]
    ids = np.array([f"{row:03d}" for row in numbers]) if as_text else numbers
    with pytest.raises(DuplicateIdError, match=r"row 12 of \S+part-00000.parquet and row 13 of \S+part-00002.parquet"):
        shards_of(tmp_path, ids)
    assert not list(tmp_path.rglob(module.FOLDER))


def test_increasing_disjoint_ids_are_proven_without_reading_them(tmp_path: Path) -> None:
    def shard(name: str, ids: np.ndarray) -> Shard:
        return Shard(name=name, n_rows=len(ids), n_bytes=1, details=seen(ids.tolist()).details())

    nowhere = Artifact(str(tmp_path))
    apart = [shard("a", np.arange(48, 100)), shard("b", np.arange(48))]  # out of order, each increasing
    refuse_duplicates(nowhere, apart, [("a", 0), ("b", 0)])
    with pytest.raises(FileNotFoundError):
        refuse_duplicates(nowhere, [*apart, shard("c", np.arange(40, 60))], [("a", 0), ("b", 0), ("c", 0)])
