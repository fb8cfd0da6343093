"""Near-duplicates of a finished run: chains of rows that are near each other, of which the first row is kept.

Two rows are joined where one lists the other at a distance of at most the threshold; what joins lead to is a group.
The first row of each group, in the order of the source, is kept: that needs no second pass over the vectors, does not
depend on how shards or tasks are cut, and rows that arrive later never take the place of one that was kept before.

What can be missed: a pair that the search missed (its recall is in the manifest of ``neighbors``), and the tie between
two crowds of more than K rows each, whose lists are full of their own. Then more rows are kept than need be. Equal rows
are never missed: the search lists the first of them with each that no list had room for.

Shape letters: N rows, K neighbours.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.curation.lists import RunLists
from distspectral.errors import ConfigError
from distspectral.graph.components import Components
from distspectral.graph.near import pairs_within
from distspectral.mapping import Mapper, local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard, fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing, write_shard
from distspectral.storage.rows.arrays import write_arrays
from distspectral.storage.rows.columns import to_array
from distspectral.storage.rows.packed import read_column

STAGE = "dedup"
PAIRS = "pairs-"
"""What the scratch files are called that hold the pairs of a shard of lists."""
ROW, NEIGHBOR = "row", "neighbor"
TRIED_SHARES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the rows, that have a neighbour within the thresholds that a survey tries."""
BLOCK_ROWS = 1 << 16
"""Rows whose lists are looked at, and that are written, at once."""


def dedup_output(lists: RunLists, threshold: float, artifact: Artifact) -> Output:
    """Return where :func:`dedup` writes and what identifies its result.

    Args:
        lists: of the run.
        threshold: largest distance of a near-duplicate.
        artifact: the directory.

    Raises:
        ConfigError: the threshold is negative or no number.
    """
    if not threshold >= 0 or np.isinf(threshold):
        raise ConfigError(f"--threshold: is {threshold}, expected a distance of at least 0")
    config = {"threshold": threshold, "metric": lists.scale.measure}
    inputs = {"pack": lists.vectors.manifest().fingerprint, "neighbors": lists.neighbors.manifest().fingerprint}
    return Output(artifact, STAGE, fingerprint(STAGE, config, inputs), config, inputs)


def dedup(lists: RunLists, threshold: float, output: Output, mapper: Mapper = local_map) -> Manifest:
    """Write which rows are near-duplicates: one Parquet shard per shard of the packed rows.

    Columns: ``id``; ``group``, the number of the group's first row, of its own for a row that is alone; ``keep``,
    whether the row is that first one. The driver holds 8 bytes a row, and 24 more for each row that is dropped; a task
    some megabytes. A call that was interrupted goes on with the shards that are missing.

    Args:
        lists: of the run.
        threshold: largest distance of a near-duplicate, in the unit of ``lists.scale``.
        output: of :func:`dedup_output`.
        mapper: runs the tasks.
    """
    if output.artifact.is_current(output.fingerprint):
        return output.artifact.manifest()
    done = output.begin()
    labels = _grouped(lists, threshold, output.artifact, done, mapper)
    dropped = _dropped(labels)
    groups, sizes = np.unique(labels[dropped], return_counts=True)

    items = [
        (f"part-{index:05d}.parquet", shard.name, first, labels[first : first + shard.n_rows])
        for index, (shard, first) in enumerate(lists.vectors.manifest().shards_and_first_rows)
    ]
    write = functools.partial(_write, vectors=lists.vectors, output=output.artifact)
    shards = write_missing(done, mapper, write, items, "writing groups")
    metrics = {
        "groups": len(groups),
        "kept_rows": len(labels) - len(dropped),
        "dropped_rows": len(dropped),
        "dropped_share": len(dropped) / len(labels),
        "largest_group": int(sizes.max(initial=0)) + 1,
    }
    properties = {"n_rows": len(labels), "threshold": threshold, "metric": lists.scale.measure}
    manifest = output.commit(shards, properties, metrics)
    for name in done:
        if name.startswith(PAIRS):
            output.artifact.delete_file(name)
    return manifest


def survey(lists: RunLists) -> list[dict[str, Any]]:
    """Return what thresholds would drop, as records of ``threshold``, ``near_share`` and ``dropped_share``.

    Thresholds are zero and quantiles of the distance to the nearest neighbour, to three digits. ``near_share``: rows
    whose nearest neighbour lies within. The lists are read once for the quantiles and once for each threshold, whose
    groups are those of the one before, joined further. 12 bytes a row are held.

    Args:
        lists: of the run.
    """
    n_rows, shards = lists.neighbors.manifest().n_rows, lists.shards()
    nearest = np.empty(n_rows, np.float32)
    for shard, first in shards:
        for start, neighbors, squared in lists.blocks(shard, first, BLOCK_ROWS):
            nearest[start : start + len(neighbors)] = squared.min(axis=1)
    nearest.sort()
    at = [min(int(np.ceil(share * len(nearest))), len(nearest)) - 1 for share in TRIED_SHARES]
    quantiles = lists.scale.distances(nearest[at])
    tried = sorted({0.0, *(float(f"{one:.3g}") for one in quantiles if np.isfinite(one))})
    components, above, records = Components(n_rows), -1.0, []
    for threshold in tried:
        limit = lists.scale.squared(threshold)
        for shard, first in shards:
            for start, neighbors, squared in lists.blocks(shard, first, BLOCK_ROWS):
                _join(components, *pairs_within(neighbors, squared, start, limit, above))
        above = limit
        records.append(
            {
                "threshold": threshold,
                "near_share": float(np.searchsorted(nearest, limit, side="right") / len(nearest)),
                "dropped_share": len(_dropped(components.labels())) / len(nearest),
            }
        )
    return records


# ---- pairs and groups ------------------------------------------------------------------------------------------------


def _grouped(
    lists: RunLists, threshold: float, artifact: Artifact, done: dict[str, Shard], mapper: Mapper
) -> NDArray[np.int64]:
    """Return the group (N,) of every row, named by its first row, and add to ``done`` what was written for that."""
    items = [(f"{PAIRS}{index:05d}.arrow", *listed) for index, listed in enumerate(lists.shards())]
    find = functools.partial(_find, lists=lists, limit=lists.scale.squared(threshold), output=artifact)
    components = Components(lists.neighbors.manifest().n_rows)
    for shard in write_missing(done, mapper, find, items, "finding pairs"):
        for batch in artifact.read_table(shard.name).to_batches():
            rows, neighbors = (to_array(batch.column(key)) for key in (ROW, NEIGHBOR))
            _join(components, rows, neighbors)
    return components.labels()


def _find(item: tuple[str, Shard, int], *, lists: RunLists, limit: float, output: Artifact) -> Shard:
    """Write the pairs of one shard's rows."""
    name, shard, first = item

    def batches() -> Iterator[dict[str, NDArray[np.int64]]]:
        for start, neighbors, squared in lists.blocks(shard, first, BLOCK_ROWS):
            yield dict(zip((ROW, NEIGHBOR), pairs_within(neighbors, squared, start, limit), strict=True))

    return write_arrays(output, name, batches())


def _join(components: Components, rows: NDArray[np.int64], neighbors: NDArray[np.int64]) -> None:
    heads, tails = components.of(rows), components.of(neighbors)
    apart = heads != tails
    components.merge(heads[apart], tails[apart])


def _dropped(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows, ascending, that are not the first of their group."""
    parts = [
        start + np.flatnonzero(part != np.arange(start, start + len(part)))
        for start in range(0, len(labels), BLOCK_ROWS)
        for part in [labels[start : start + BLOCK_ROWS]]
    ]
    return np.concatenate(parts)


def _write(item: tuple[str, str, int, NDArray[np.int64]], *, vectors: Artifact, output: Artifact) -> Shard:
    """Write the groups of one shard's rows."""
    name, packed, first, labels = item
    ids = read_column(vectors, [packed], "id")
    schema = pa.schema([("id", ids.type), ("group", pa.int64()), ("keep", pa.bool_())])

    def write(sink: IO[bytes]) -> int:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for start in range(0, len(labels), BLOCK_ROWS):
                part = labels[start : start + BLOCK_ROWS]
                own = np.arange(first + start, first + start + len(part))
                columns = [ids.slice(start, len(part)), part, part == own]
                writer.write_table(pa.table(columns, schema=schema))
        return len(labels)

    return write_shard(output, name, write)
