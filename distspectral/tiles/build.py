"""The tiles of a finished run's map: every row once, by level of detail and then along a curve through the plane.

The output is read shard by shard, a block of rows at a time: for the square around all places, for counts by place and
cluster, and to cut each block into the files that its rows belong to. Each file is then put together and sorted by
itself. So time and disk grow with the rows, and memory does not. A call that was interrupted goes on with the pieces
and files that are missing.

Shape letters: M leaves, B rows of a block.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.embedding.columns import OF_MAP
from distspectral.errors import ConfigError, UnknownColumnError
from distspectral.mapping import Mapper, local_map
from distspectral.stages.tree import TREE
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard, fingerprint
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_missing, write_shard
from distspectral.tiles.detail import TILE_ROWS, keys_of
from distspectral.tiles.layers import OUTLIER, Layer, layer_sizes, layers_of
from distspectral.tiles.mapped_run import MappedRun, are_outliers, blocks
from distspectral.tiles.plan import DENSITY, LABELS, PLAN, Plan, write_plan
from distspectral.tiles.plane import cell_of, row_hash

STAGE = "tiles"
PIECES = "piece-"
"""What the scratch files are called that hold a shard's rows by file."""
GROUP_ROWS = 1 << 14
"""Of a Parquet row group: a reader that wants a window skips groups by their least and largest x and y."""
OWN = ("level", "tile_x", "tile_y")


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
        write_plan(run, layers, wish.names, wish.carry, artifact, mapper)
    plan = Plan.of(artifact)

    items = [(f"{PIECES}{index:05d}.arrow", *shard) for index, shard in enumerate(run.shards())]
    cut = functools.partial(_cut, output=run.output, columns=(*run.columns, *wish.carry), target=artifact)
    parts: dict[int, list[tuple[str, list[int]]]] = {}
    for piece in write_missing(done, mapper, cut, items, "cutting shards into tiles"):
        files = np.asarray(piece.details["files"], np.int64)
        for file in np.unique(files).tolist():
            parts.setdefault(file, []).append((piece.name, np.flatnonzero(files == file).tolist()))
    tiles = [(plan.file_name(file), plan.level_of(file), parts[file]) for file in sorted(parts)]

    write = functools.partial(_write, layers=[layer.of_leaf for layer in layers], target=artifact)
    shards = write_missing(done, mapper, write, tiles, "writing tiles")
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


def _cut(item: tuple[str, Shard, int], *, output: Artifact, columns: Sequence[str], target: Artifact) -> Shard:
    """Write a shard's rows, those of one file in a batch of their own; one task."""
    name, shard, first = item
    plan = Plan.of(target)
    details: dict[str, Any] = {"files": []}

    def write(sink: IO[bytes]) -> int:
        writer, n_rows = None, 0
        for block in blocks(output, shard, columns, plan.block_rows):
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
    leaf, is_outlier = rows["leaf"].to_numpy(), are_outliers(rows)
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
