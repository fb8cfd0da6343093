"""Which level and file each row of the tiles belongs to, by two looks at all places.

The first look finds the square around them, the second counts rows by place and cluster.
Shape letters: S strata, M leaves, B rows of a block.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.embedding.columns import OF_MAP
from distspectral.errors import NonFiniteRowError
from distspectral.mapping import Mapper
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.tiles.detail import FILE_ROWS, TILE_ROWS, Detail, Strata, grid_bits, keys_of, levels_of_detail
from distspectral.tiles.layers import Layer, label_records
from distspectral.tiles.mapped_run import MappedRun, are_outliers, blocks
from distspectral.tiles.plane import Plane, cell_of

LABELS, DENSITY = ".labels.json", ".density.npy"
"""What is written beside the rows: where each label stands, and how many rows each cell of a grid has."""
PLAN, PLAN_STRATA, PLAN_BOUNDS = ".plan.json", ".plan-strata.npy", ".plan-bounds.npy"
"""Where it is kept, while tiles are made, what belongs to which file."""
BLOCK_ROWS = 1 << 17
"""Rows that are read at once."""
FILE_BYTES = 256 << 20
"""Of a file's rows in memory, carried columns included."""
OWN_BYTES = 64
"""Of a row without carried columns, in memory."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What tells each row's level and file.

    Attributes:
        plane: that the places lie in.
        detail: levels and files.
        block_rows: that a shard is read by.
    """

    plane: Plane
    detail: Detail
    block_rows: int

    @classmethod
    def of(cls, artifact: Artifact) -> Plan:
        """Return the plan that stands in the directory."""
        told, (keys, counts) = artifact.read_json(PLAN), artifact.load_array(PLAN_STRATA)
        strata = Strata(told["bits"], told["n_clusters"], keys, counts)
        edges = [np.array(one, np.float64) for one in told["edges"]]
        return cls(Plane(*told["square"]), Detail(strata, artifact.load_array(PLAN_BOUNDS), edges), told["block_rows"])

    def level_of(self, file: int) -> int:
        """Return the level that a file is of."""
        return int(np.searchsorted(self.detail.first_files, file, side="right")) - 1

    def file_name(self, file: int) -> str:
        """Return the name of a file."""
        level = self.level_of(file)
        return f"level-{level:02d}-{file - self.detail.first_files[level]:05d}.parquet"


def write_plan(
    run: MappedRun,
    layers: Sequence[Layer],
    names: dict[int, str],
    carry: Sequence[str],
    artifact: Artifact,
    mapper: Mapper,
) -> None:
    """Look at all places twice, and write the plan, the labels' places and the density.

    Args:
        run: whose rows.
        layers: of labels.
        names: of nodes of the tree.
        carry: columns whose bytes count for a file's size.
        artifact: where to.
        mapper: runs the tasks.

    Raises:
        NonFiniteRowError: a place on the map is no number.
    """
    shards = run.shards()
    look = functools.partial(_box, output=run.output, carry=carry)
    boxes, n_bytes = zip(*mapper(look, shards, "measuring the map"), strict=True)
    low, high = np.min([box[0] for box in boxes], axis=0), np.max([box[1] for box in boxes], axis=0)
    plane, bits = Plane.around(low, high), grid_bits(run.manifest.n_rows)
    row_bytes = OWN_BYTES + sum(n_bytes) / run.manifest.n_rows
    file_rows = int(min(FILE_ROWS, max(FILE_BYTES // row_bytes, 1)))

    tally = _Counts(bits, run.n_clusters, run.tree.n_leaves)
    count = functools.partial(
        _count, output=run.output, columns=run.columns[1:], plane=plane, empty=copy.deepcopy(tally)
    )
    for one in mapper(count, shards, "counting places"):
        tally.add(one)
    strata = tally.strata()
    detail = levels_of_detail(strata, TILE_ROWS, file_rows)
    artifact.write_file(PLAN_STRATA, lambda file: np.save(file, np.stack([strata.keys, strata.counts])))
    artifact.write_file(PLAN_BOUNDS, lambda file: np.save(file, detail.bounds))
    artifact.write_file(DENSITY, lambda file: np.save(file, _density(strata)))
    artifact.write_json(LABELS, label_records(layers, tally.leaf_rows, tally.leaf_sums, names))
    told = {
        "square": [plane.x, plane.y, plane.side],
        "bits": bits,
        "n_clusters": run.n_clusters,
        "edges": [edges.tolist() for edges in detail.edges],
        "block_rows": min(BLOCK_ROWS, file_rows),
    }
    artifact.write_bytes(PLAN, json.dumps(told).encode())


class _Counts:
    """Rows by stratum, and rows and places of each leaf; of a shard, or of all."""

    def __init__(self, bits: int, n_clusters: int, n_leaves: int) -> None:
        self.bits, self.n_clusters = bits, n_clusters
        self.leaf_rows, self.leaf_sums = np.zeros(n_leaves, np.int64), np.zeros((n_leaves, 2))
        self._keys, self._counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self._n_waiting = 0

    def put(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Count rows by their strata's keys, each once or more often; they are merged now and then."""
        self._keys.append(keys)
        self._counts.append(counts)
        self._n_waiting += len(keys)
        if self._n_waiting > len(self._keys[0]):
            self._merge()

    def add(self, other: _Counts) -> None:
        """Count what another one has."""
        strata = other.strata()
        self.put(strata.keys, strata.counts)
        self.leaf_rows += other.leaf_rows
        self.leaf_sums += other.leaf_sums

    def strata(self) -> Strata:
        """Return the strata that have rows."""
        self._merge()
        return Strata(self.bits, self.n_clusters, self._keys[0], self._counts[0])

    def _merge(self) -> None:
        keys, where = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, where, np.concatenate(self._counts))
        self._keys, self._counts, self._n_waiting = [keys], [counts], 0


def _density(strata: Strata) -> NDArray[np.uint32]:
    """Return the rows of each cell of the grid, from below and from the left."""
    counts = np.bincount(strata.cells(), strata.counts, 4**strata.bits).astype(np.uint32)
    across, up = cell_of(np.arange(4**strata.bits, dtype=np.uint32), 16)
    grid = np.zeros((2**strata.bits, 2**strata.bits), np.uint32)
    grid[up, across] = counts
    return grid


def _box(
    item: tuple[Shard, int], *, output: Artifact, carry: Sequence[str]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], int]:
    """Return least and largest x and y (2,) of a shard, and the bytes of its carried columns; one task."""
    shard, _ = item
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for block in blocks(output, shard, OF_MAP, BLOCK_ROWS):
        places = np.stack([block.column(axis).to_numpy() for axis in OF_MAP])
        low, high = np.minimum(low, places.min(axis=1)), np.maximum(high, places.max(axis=1))
    if not np.isfinite([low, high]).all():
        raise NonFiniteRowError(f"{output.uri}/{shard.name}: a place on the map is no number; draw the map anew")
    with output.filesystem.open_input_file(output.file_path(shard.name)) as stream:
        footer = pq.ParquetFile(stream).metadata
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    n_bytes = sum(one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] in carry)
    return (low, high), n_bytes


def _count(
    item: tuple[Shard, int], *, output: Artifact, columns: Sequence[str], plane: Plane, empty: _Counts
) -> _Counts:
    """Return the counts of a shard; one task."""
    shard, _ = item
    found = copy.deepcopy(empty)
    for block in blocks(output, shard, columns, BLOCK_ROWS):
        x, y, cluster, leaf = (block.column(name).to_numpy() for name in (*OF_MAP, "cluster", "leaf"))
        found.put(*np.unique(keys_of(plane.morton(x, y), cluster, found.bits, found.n_clusters), return_counts=True))
        inside = ~are_outliers(block)
        for axis, places in enumerate((x, y)):
            sums = np.bincount(leaf[inside], places[inside].astype(np.float64), len(found.leaf_rows))
            found.leaf_sums[:, axis] += sums
        found.leaf_rows += np.bincount(leaf[inside], minlength=len(found.leaf_rows))
    return found
