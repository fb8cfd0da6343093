"""Proof that ids are unique: by ranges where shards are sorted, by comparing digests where they are not."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distspectral.errors import DuplicateIdError
from distspectral.mapping import Mapper, in_order, local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.rows.arrays import Piece, piece_offsets, pieces_at, read_pieces, write_pieces
from distspectral.storage.rows.packed import read_column

SUSPECTS = 1000
"""Repeated digests whose ids are looked up: far more than ever belong to different ids."""
PART_ROWS = 1 << 22
"""Rows whose digests one task sorts, on average."""
FOLDER = ".ids"
DIGEST = "digest"
COMPARING, SORTING = "comparing ids", "sorting ids"
MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads ids that are numbers over the parts (Fibonacci hashing)."""


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


def refuse_duplicates(
    artifact: Artifact, shards: Sequence[Shard], places: Sequence[tuple[str, int]], mapper: Mapper = local_map
) -> None:
    """Check that no id occurs twice.

    Shards are grouped by overlapping ranges; a shard alone in its range whose ids increase is proven already. Of the
    others each task reads the ids of one shard and deals eight bytes of each to parts, by their hash; then each task
    sorts one part. So the caller's process holds nothing that grows with the rows.

    Args:
        artifact: holds the packed shards.
        shards: receipts with the details of :class:`IdRange`.
        places: where each comes from, for the message: a file and its row that the shard begins with.
        mapper: runs the tasks.

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
    unproven = sorted(
        index for group in groups if len(group) > 1 or not shards[group[0]].details["ids_increase"] for index in group
    )
    if unproven:
        _compare(artifact, [shards[index] for index in unproven], [places[index] for index in unproven], mapper)


def _compare(artifact: Artifact, shards: Sequence[Shard], places: Sequence[tuple[str, int]], mapper: Mapper) -> None:
    names = [shard.name for shard in shards]
    repeated = _repeated(artifact, names, sum(shard.n_rows for shard in shards), mapper)
    if not len(repeated):
        return
    occurring: dict[Any, list[tuple[int, int]]] = {}
    found = in_order(mapper, functools.partial(_places, artifact, repeated), names, "finding ids")
    for index, in_shard in enumerate(found):
        for one, own in in_shard.items():
            occurring.setdefault(one, []).extend((index, row) for row in own)
    twice = [(rows[:2], one) for one, rows in occurring.items() if len(rows) > 1]
    if twice:
        rows, one = min(twice)
        first, second = (f"row {places[index][1] + row} of {places[index][0]}" for index, row in rows)
        raise DuplicateIdError(
            f"id {one!r} occurs twice: {first} and {second}; ids must be unique over all shards, "
            "remove one row or leave out data.id_column",
            parameters=["data.id_column"],
        )


def _repeated(artifact: Artifact, names: Sequence[str], n_rows: int, mapper: Mapper) -> NDArray[np.uint64]:
    """Return digests that occur more than once in shards of so many rows, at most :data:`SUSPECTS`, ascending."""
    scratch = artifact.child(FOLDER)
    scratch.delete()  # of an interrupted run
    scratch.filesystem.create_dir(scratch.path, recursive=True)
    try:
        n_parts = -(-n_rows // PART_ROWS)
        deal = functools.partial(_deal, artifact, scratch, n_parts)
        dealt = list(in_order(mapper, deal, names, COMPARING))
        offsets, files = piece_offsets(dealt), [shard.name for shard in dealt]
        parts = [pieces_at(files, offsets[:, part : part + 2]) for part in range(n_parts)]
        found = list(mapper(functools.partial(_repeated_of, scratch), parts, SORTING))
    finally:
        scratch.delete()
    return np.unique(np.concatenate(found))[:SUSPECTS]


def _deal(artifact: Artifact, scratch: Artifact, n_parts: int, name: str) -> Shard:
    """Write the digests of a shard's ids, those of each part together; one task."""
    digests = _digests(artifact, name)
    parts = ((digests * MIX) >> np.uint64(32)) * np.uint64(n_parts) >> np.uint64(32)
    order = np.argsort(parts, kind="stable")
    cuts = np.searchsorted(parts[order], np.arange(1, n_parts))
    return write_pieces(scratch, name, ({DIGEST: piece} for piece in np.split(digests[order], cuts)))


def _repeated_of(scratch: Artifact, pieces: Sequence[Piece]) -> NDArray[np.uint64]:
    """Return the first repeated digests of one part; one task."""
    read = [np.empty(0, np.uint64), *(piece[DIGEST] for piece in read_pieces(scratch, pieces))]
    digests = np.sort(np.concatenate(read))
    return np.unique(digests[1:][digests[1:] == digests[:-1]])[:SUSPECTS]


def _digests(artifact: Artifact, name: str) -> NDArray[np.uint64]:
    """Return eight bytes for each id of a shard: equal for equal ids, and hardly ever for others."""
    ids = read_column(artifact, [name], "id")
    if pa.types.is_string(ids.type):
        each = (blake2b(one, digest_size=8).digest() for one in ids.cast(pa.binary()).to_pylist())
        return np.frombuffer(b"".join(each), np.uint64)
    numbers: NDArray[np.uint64] = ids.to_numpy().view(np.uint64)
    return numbers


def _places(artifact: Artifact, repeated: NDArray[np.uint64], name: str) -> dict[Any, list[int]]:
    """Return the first two rows in a shard of each id whose digest is a repeated one."""
    rows = np.flatnonzero(np.isin(_digests(artifact, name), repeated))
    places: dict[Any, list[int]] = {}
    for row, one in zip(
        rows.tolist(), read_column(artifact, [name], "id").take(pa.array(rows)).to_pylist(), strict=True
    ):
        if len(places.setdefault(one, [])) < 2:
            places[one].append(row)
    return places
