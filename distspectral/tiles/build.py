"""The tiles of a finished run's map: every row once, by level of detail and then along a curve through the plane.

The output is read shard by shard, a block of rows at a time: for the square around all places, for counts by place and
cluster, and to cut each block into the files that its rows belong to. Each file is then put together and sorted by
itself. So time and disk grow with the rows, and memory does not. A call that was interrupted goes on with the pieces
and files that are missing.

Shape letters: S strata, M leaves, B rows of a block.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.embedding.columns import OF_MAP, require_column, written_columns
from distspectral.errors import ConfigError, FingerprintMismatchError, NonFiniteRowError, UnknownColumnError
from distspectral.mapping import Mapper, local_map
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.tree import Tree
from distspectral.stages import folder_of, kind_of
from distspectral.stages.map import MAP
from distspectral.stages.tree import TREE
from distspectral.stages.tree_files import load_tree
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard, fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_shard
from distspectral.tiles.detail import FILE_ROWS, TILE_ROWS, Detail, Strata, grid_bits, keys_of, levels_of_detail
from distspectral.tiles.layers import OUTLIER, Layer, label_records, layer_sizes, layers_of
from distspectral.tiles.plane import Plane, cell_of, row_hash

STAGE = "tiles"
LABELS, DENSITY = ".labels.json", ".density.npy"
"""What is written beside the rows: where each label stands, and how many rows each cell of a grid has."""
PIECES = "piece-"
"""What the scratch files are called that hold a shard's rows by file."""
PLAN, PLAN_STRATA, PLAN_BOUNDS = ".plan.json", ".plan-strata.npy", ".plan-bounds.npy"
"""Where it is kept, while tiles are made, what belongs to which file."""
BLOCK_ROWS = 1 << 17
"""Rows that are read at once."""
FILE_BYTES = 256 << 20
"""Of a file's rows in memory, carried columns included."""
OWN_BYTES = 64
"""Of a row without carried columns, in memory."""
GROUP_ROWS = 1 << 14
"""Of a Parquet row group: a reader that wants a window skips groups by their least and largest x and y."""
OWN = ("level", "tile_x", "tile_y")


@dataclasses.dataclass(frozen=True)
class MappedRun:
    """A finished run that has a map and a tree.

    Attributes:
        output: its artifact of rows.
        manifest: of it.
        tree: the tree that its leaves belong to.
        tree_fingerprint: of the artifact of that.
    """

    output: Artifact
    manifest: Manifest
    tree: Tree
    tree_fingerprint: str

    @classmethod
    def of(cls, root: Artifact) -> MappedRun:
        """Return what is known of a run.

        Args:
            root: its directory.

        Raises:
            ConfigError: it has no map, or its output lacks a column.
            ArtifactError: output or tree are missing or damaged, or do not belong together.
        """
        if kind_of(root) != SpectralRecipe.kind:
            raise ConfigError(f"{root.uri}: a run of objective dscl has no map; take one of objective spectral")
        output = root.child(folder_of(SpectralRecipe.kind, "embed"))
        manifest = output.require(output.manifest().fingerprint)
        if not root.child(MAP.folder).has(MANIFEST):
            raise ConfigError(
                f"{root.uri}: has no map; set map.enabled to true, and `distspectral run` draws it", ["map.enabled"]
            )
        for column in (*OF_MAP, "cluster", "leaf"):
            require_column(manifest, column, output.uri)
        artifact = root.child(TREE.folder)
        made = artifact.require(artifact.manifest().fingerprint)
        if manifest.inputs[TREE.name] != made.fingerprint:
            raise FingerprintMismatchError(
                f"{output.uri}: was written by another tree than the one that stands there; `distspectral run` brings "
                "them together"
            )
        return cls(output, manifest, load_tree(artifact)[0], made.fingerprint)

    @property
    def n_clusters(self) -> int:
        """C."""
        return int(self.manifest.properties["n_clusters"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read beside those carried."""
        outlier = ("is_outlier",) if "is_outlier" in written_columns(self.manifest) else ()
        return ("id", *OF_MAP, "cluster", "leaf", *outlier)

    def shards(self) -> list[tuple[Shard, int]]:
        """Return the shards that have rows, and the number of the first row of each."""
        shards = self.manifest.shards
        firsts = np.cumsum([0, *(shard.n_rows for shard in shards)]).tolist()
        return [(shard, first) for shard, first in zip(shards, firsts, strict=False) if shard.n_rows]


@dataclasses.dataclass(frozen=True)
class Wish:
    """What tiles are to hold.

    Attributes:
        layers: clusters of each layer of labels; None for :func:`distspectral.tiles.layers.layer_sizes`.
        carry: columns of the output that were carried there from the shards.
        names: of nodes of the tree.
    """

    layers: tuple[int, ...] | None = None
    carry: tuple[str, ...] = ()
    names: dict[int, str] = dataclasses.field(default_factory=dict)

    def checked(self, run: MappedRun) -> list[Layer]:
        """Return the layers.

        Raises:
            ConfigError: a number of clusters is none, or a carried column has a name of the tiles' own.
            TooManyClustersError: more clusters than the tree has leaves.
            UnknownColumnError: the output has no such carried column.
        """
        sizes = layer_sizes(run.n_clusters, run.tree.n_leaves) if self.layers is None else self.layers
        layers = layers_of(run.tree, sizes)
        carried = run.manifest.properties.get("carried", ())
        for name in self.carry:
            if name not in carried:
                there = f"there are {', '.join(carried)}" if carried else "data.carry takes columns over"
                raise UnknownColumnError(f"--carry: {run.output.uri} has no carried column {name!r}; {there}")
            if name in (*OWN, *_label_names(layers)):
                raise ConfigError(f"--carry: tiles have a column {name!r} of their own; leave that one out")
        return layers


def tiles_output(run: MappedRun, wish: Wish, artifact: Artifact) -> Output:
    """Return where :func:`make_tiles` writes and what identifies its result.

    Raises:
        ConfigError, UnknownColumnError: see :meth:`Wish.checked`.
    """
    config = {
        "layers": [len(layer.nodes) for layer in wish.checked(run)],
        "carry": list(wish.carry),
        "names": {str(node): name for node, name in sorted(wish.names.items())},
        "tile_rows": TILE_ROWS,
    }
    inputs = {"embed": run.manifest.fingerprint, TREE.name: run.tree_fingerprint}
    return Output(artifact, STAGE, fingerprint(STAGE, config, inputs), config, inputs)


def make_tiles(run: MappedRun, wish: Wish, output: Output, mapper: Mapper = local_map) -> Manifest:
    """Write the tiles: Parquet files ``level-LL-NNNNN.parquet``, whose names in order are the order of the rows.

    Args:
        run: whose rows.
        wish: what the tiles are to hold.
        output: of :func:`tiles_output`.
        mapper: runs the tasks.

    Raises:
        NonFiniteRowError: a place on the map is no number.
    """
    artifact = output.artifact
    if output.artifact.is_current(output.fingerprint):
        _tidy(artifact)
        return artifact.manifest()
    done, layers = output.begin(), wish.checked(run)
    if not artifact.has(PLAN):
        _write_plan(run, wish, layers, artifact, mapper)
    plan = Plan.of(artifact)

    items = [(f"{PIECES}{index:05d}.arrow", *shard) for index, shard in enumerate(run.shards())]
    cut = functools.partial(_cut, output=run.output, columns=(*run.columns, *wish.carry), target=artifact)
    missing = [item for item in items if item[0] not in done]
    done |= {piece.name: piece for piece in mapper(cut, missing, "cutting shards into tiles")}
    parts: dict[int, list[tuple[str, list[int]]]] = {}
    for name, _, _ in items:
        files = np.asarray(done[name].details["files"], np.int64)
        for file in np.unique(files).tolist():
            parts.setdefault(file, []).append((name, np.flatnonzero(files == file).tolist()))
    named = {plan.file_name(file): (plan.level_of(file), parts[file]) for file in sorted(parts)}

    write = functools.partial(_write, layers=[layer.of_leaf for layer in layers], target=artifact)
    files_missing = [(name, *rest) for name, rest in named.items() if name not in done]
    done |= {shard.name: shard for shard in mapper(write, files_missing, "writing tiles")}
    shards = [done[name] for name in named]
    properties = {
        "n_rows": sum(shard.n_rows for shard in shards),
        "square": [plan.plane.x, plan.plane.y, plan.plane.side],
        "layers": [len(layer.nodes) for layer in layers],
        "carried": list(wish.carry),
        "levels": _levels(shards),
    }
    manifest = output.commit(shards, properties, {}, files=(LABELS, DENSITY))
    _tidy(artifact)
    return manifest


def _levels(shards: Sequence[Shard]) -> list[dict[str, int]]:
    """Return rows, files and bytes of each level, to the last that has any."""
    of: list[list[Shard]] = [[] for _ in range(1 + max(shard.details["level"] for shard in shards))]
    for shard in shards:
        of[shard.details["level"]].append(shard)
    return [
        {
            "rows": sum(shard.n_rows for shard in one),
            "files": len(one),
            "bytes": sum(shard.n_bytes for shard in one),
        }
        for one in of
    ]


def _tidy(artifact: Artifact) -> None:
    """Remove what led to the tiles."""
    for entry in artifact.entries():
        if entry.base_name.startswith((PIECES, PLAN.removesuffix(".json"))):
            artifact.delete_file(entry.base_name)


def _label_names(layers: Sequence[Any]) -> list[str]:
    return [f"label_{number}" for number in range(len(layers))]


# ---- what belongs where ----------------------------------------------------------------------------------------------


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


def _write_plan(run: MappedRun, wish: Wish, layers: Sequence[Layer], artifact: Artifact, mapper: Mapper) -> None:
    """Look at all places twice, and write the plan, the labels' places and the density."""
    shards = run.shards()
    look = functools.partial(_box, output=run.output, carry=wish.carry)
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
    artifact.write_json(LABELS, label_records(layers, tally.leaf_rows, tally.leaf_sums, wish.names))
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


# ---- what is done with a shard ---------------------------------------------------------------------------------------


def _blocks(output: Artifact, shard: Shard, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield columns of a shard's rows in their order."""
    with output.filesystem.open_input_file(output.file_path(shard.name)) as stream:
        yield from pq.ParquetFile(stream).iter_batches(n_rows, columns=list(columns))


def _box(
    item: tuple[Shard, int], *, output: Artifact, carry: Sequence[str]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], int]:
    """Return least and largest x and y (2,) of a shard, and the bytes of its carried columns; one task."""
    shard, _ = item
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for block in _blocks(output, shard, OF_MAP, BLOCK_ROWS):
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
    for block in _blocks(output, shard, columns, BLOCK_ROWS):
        x, y, cluster, leaf = (block.column(name).to_numpy() for name in (*OF_MAP, "cluster", "leaf"))
        found.put(*np.unique(keys_of(plane.morton(x, y), cluster, found.bits, found.n_clusters), return_counts=True))
        inside = ~_are_outliers(block)
        for axis, places in enumerate((x, y)):
            sums = np.bincount(leaf[inside], places[inside].astype(np.float64), len(found.leaf_rows))
            found.leaf_sums[:, axis] += sums
        found.leaf_rows += np.bincount(leaf[inside], minlength=len(found.leaf_rows))
    return found


def _are_outliers(rows: pa.RecordBatch | pa.Table) -> NDArray[np.bool_]:
    """Return which rows (B,) are outliers; none where nobody knows."""
    if "is_outlier" not in rows.schema.names:
        return np.zeros(rows.num_rows, bool)
    return np.asarray(pc.fill_null(rows["is_outlier"], False))


def _cut(item: tuple[str, Shard, int], *, output: Artifact, columns: Sequence[str], target: Artifact) -> Shard:
    """Write a shard's rows, those of one file in a batch of their own; one task."""
    name, shard, first = item
    plan = Plan.of(target)
    details: dict[str, Any] = {"files": []}

    def write(sink: IO[bytes]) -> int:
        writer, n_rows = None, 0
        for block in _blocks(output, shard, columns, plan.block_rows):
            x, y, cluster = (block.column(one).to_numpy() for one in (*OF_MAP, "cluster"))
            morton, numbers = plan.plane.morton(x, y), row_hash(first + n_rows, block.num_rows)
            strata = plan.detail.strata
            _, file = plan.detail.of_rows(keys_of(morton, cluster, strata.bits, strata.n_clusters), numbers)
            key = morton.astype(np.uint64) << np.uint64(32) | numbers >> np.uint64(32)
            order = np.argsort(file, kind="stable")
            table = pa.Table.from_batches([block]).select(list(columns)).append_column("key", pa.array(key)).take(order)
            cuts = np.flatnonzero(np.diff(file[order])) + 1
            if writer is None:
                writer = pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
            for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(order)], strict=True):
                (batch,) = table.slice(begin, end - begin).combine_chunks().to_batches()
                writer.write_batch(batch)
                details["files"].append(int(file[order[begin]]))
            n_rows += block.num_rows
        assert writer is not None, "shards without rows are left out"
        writer.close()
        return n_rows

    return write_shard(target, name, write, details)


def _write(
    item: tuple[str, int, list[tuple[str, list[int]]]], *, layers: Sequence[NDArray[np.int32]], target: Artifact
) -> Shard:
    """Write one file of tiles, its rows along the curve; one task."""
    name, level, parts = item
    batches = []
    for piece, numbers in parts:
        with target.open_mapped(piece) as stream:
            reader = pa.ipc.open_file(stream)
            batches += [reader.get_batch(number) for number in numbers]
    rows = pa.Table.from_batches(batches)
    rows = rows.take(np.argsort(rows["key"].to_numpy(), kind="stable"))
    tile_x, tile_y = cell_of((rows["key"].to_numpy() >> np.uint64(32)).astype(np.uint32), level)
    leaf, is_outlier = rows["leaf"].to_numpy(), _are_outliers(rows)
    given = {
        "level": np.full(len(rows), level, np.int32),
        "tile_x": tile_x,
        "tile_y": tile_y,
    }
    labels = [np.where(is_outlier, np.int32(OUTLIER), of_leaf[leaf]) for of_leaf in layers]
    own = [one for one in ("cluster", "leaf", "is_outlier") if one in rows.schema.names]
    carried = [one for one in rows.schema.names if one not in ("id", *OF_MAP, *own, "key")]
    columns = {one: rows[one] for one in ("id", *OF_MAP)} | given | {one: rows[one] for one in own}
    columns |= dict(zip(_label_names(layers), labels, strict=True)) | {one: rows[one] for one in carried}
    numbers = [one for one in columns if one not in ("id", *OF_MAP, *carried)]
    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": [*numbers, *carried],
        "write_statistics": [*OF_MAP, *numbers],
        "row_group_size": GROUP_ROWS,
    }

    def write(sink: IO[bytes]) -> int:
        pq.write_table(pa.table(columns), sink, **options)
        return len(rows)

    return write_shard(target, name, write, {"level": level})
