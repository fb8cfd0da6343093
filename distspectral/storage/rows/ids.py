"""Proof that ids are unique: by ranges where shards are sorted, by comparing columns where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distspectral.errors import DuplicateIdError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.packed import read_column


class IdRange:
    """Least and greatest id of the ids seen, and whether each was greater than the one before."""

    def __init__(self) -> None:
        self.low: Any = None
        self.high: Any = None
        self.is_increasing = True
        self._last: Any = None

    def update(self, ids: pa.Array) -> None:
        """Take in the next ids, at least one, int64 or string."""
        bounds = pc.min_max(ids).as_py()
        if self._last is not None and not self._last < ids[0].as_py():
            self.is_increasing = False
        self.is_increasing = self.is_increasing and pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False
        self.low = bounds["min"] if self.low is None else min(self.low, bounds["min"])
        self.high = bounds["max"] if self.high is None else max(self.high, bounds["max"])
        self._last = ids[-1].as_py()

    def details(self) -> dict[str, Any]:
        """Return what :func:`refuse_duplicates` needs, JSON-serialisable."""
        return {"id_low": self.low, "id_high": self.high, "ids_increase": self.is_increasing}


def refuse_duplicates(artifact: Artifact, shards: Sequence[Shard], places: Sequence[tuple[str, int]]) -> None:
    """Check that no id occurs twice.

    Shards are grouped by overlapping ranges; a shard alone in its range whose ids increase is proven already.

    Args:
        artifact: holds the packed shards.
        shards: receipts with the details of :class:`IdRange`.
        places: where each comes from, for the message: a file and its row that the shard begins with.

    Raises:
        DuplicateIdError: naming the id and two of its places.
    """
    order = sorted(range(len(shards)), key=lambda index: shards[index].details["id_low"])
    groups: list[list[int]] = [[order[0]]]
    high = shards[order[0]].details["id_high"]
    for index in order[1:]:
        details = shards[index].details
        if details["id_low"] <= high:
            groups[-1].append(index)
        else:
            groups.append([index])
        high = max(high, details["id_high"])
    for group in groups:
        if len(group) > 1 or not shards[group[0]].details["ids_increase"]:
            _compare(artifact, [shards[index] for index in group], [places[index] for index in group])


def _compare(artifact: Artifact, shards: Sequence[Shard], places: Sequence[tuple[str, int]]) -> None:
    columns = [read_column(artifact, shard.name, "id") for shard in shards]
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0]
    found: list[str] = []
    for column, (uri, first_row) in zip(columns, places, strict=True):
        rows = pc.indices_nonzero(pc.equal(column, repeated)).to_pylist()
        found += [f"row {first_row + row} of {uri}" for row in rows[:2]]
    raise DuplicateIdError(
        f"id {repeated.as_py()!r} occurs twice: {found[0]} and {found[1]}; ids must be unique over all shards, "
        "remove one row or leave out data.id_column",
        parameters=["data.id_column"],
    )
