"""A sample of a finished run's rows, balanced over its tree or its clusters.

The output is read twice, shard by shard: its rows are counted by leaf, and those drawn are picked as they pass. What is
drawn are places in the order of the rows of each leaf, so the sample does not depend on how shards are cut. 8 bytes a
drawn row and some for each leaf are held, and a block of rows.

Shape letters: N rows, M leaves, B rows of a block, S rows drawn.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distspectral.embedding.columns import Column, require_column
from distspectral.errors import ConfigError, MissingArtifactError, TooFewRowsError
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.balance import expected_rows, whole_numbers
from distspectral.stages.finished_run import FinishedRun
from distspectral.stages.tree_files import load_tree
from distspectral.storage.artifact.directory import MANIFEST, Artifact

Balance = Literal["tree", "clusters", "none"]
"""Over what a sample is even: all levels of the tree, the clusters, or nothing."""

LEAF: Column = "leaf"
"""Of the output: which leaf of the tree a row is in."""
BRANCHES = 8
"""Nodes of a level of the tree for each node of the level above, on average."""
BLOCK_ROWS = 1 << 18
"""Rows of the output that are read at once."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a sample holds.

    Attributes:
        n_rows: rows drawn, with repeats.
        n_all_rows: of the run.
        groups: leaves or clusters with rows, over which it was balanced; 1 if over nothing.
        groups_drawn: of these, in the sample.
        all_clusters: (C,) rows of each cluster.
        clusters: (C,) rows drawn of each cluster.
    """

    n_rows: int
    n_all_rows: int
    groups: int
    groups_drawn: int
    all_clusters: NDArray[np.int64]
    clusters: NDArray[np.int64]


class _Run:
    """The output of a finished run, block by block, and the levels over which its rows are balanced."""

    def __init__(self, root: Artifact, balance: Balance) -> None:
        run = FinishedRun(root)
        run.require_kind(SpectralRecipe.kind, "clusters")
        self.output = run.artifact("embed")
        manifest = self.output.manifest()
        require_column(manifest, "cluster", self.output.uri)
        self.shards, self.n_clusters = manifest.shards, int(manifest.properties["n_clusters"])
        self.levels: list[NDArray[np.int64]] = []
        self.column, self.n_groups = None if balance == "none" else "cluster", self.n_clusters
        if balance == "none":
            self.n_groups = 1
        elif balance == "tree":
            self.column = LEAF
            require_column(manifest, LEAF, self.output.uri)
            self._take_tree(run.artifact("tree"))

    def _take_tree(self, artifact: Artifact) -> None:
        if not artifact.has(MANIFEST):
            raise MissingArtifactError(
                f"{artifact.uri}: holds no finished tree; run the stage `tree`, or balance clusters"
            )
        tree, _ = load_tree(artifact)
        self.n_groups, n_nodes = tree.n_leaves, tree.n_clusters
        while n_nodes < self.n_groups:
            self.levels.append(tree.tops(n_nodes))
            n_nodes *= BRANCHES

    def blocks(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """Yield these columns of all rows."""
        for shard in self.shards:
            with self.output.filesystem.open_input_file(self.output.file_path(shard.name)) as file:
                yield from pq.ParquetFile(file).iter_batches(BLOCK_ROWS, columns=list(columns))

    def groups(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Return the leaf or cluster (B,) of a block's rows."""
        if self.column is None:
            return np.zeros(batch.num_rows, np.int64)
        groups: NDArray[np.int64] = batch.column(self.column).to_numpy().astype(np.int64)
        return groups


def sample(
    root: Artifact, n_rows: int, balance: Balance, seed: int, target: Artifact, name: str, *, replace: bool
) -> Drawn:
    """Write a sample as one Parquet file, whole or not at all, and return what it holds.

    Columns: ``id``; ``leaf``, where it is balanced over the tree; ``cluster``; ``weight``, rows of the run for which
    the row stands: one over its chance to be drawn, or with replacement over the times it is drawn on average. Rows
    are in the order of the run; with replacement one may be there several times.

    Args:
        root: directory of a finished run.
        n_rows: S.
        balance: over what the sample is even.
        seed: of the draw.
        target: directory of the file.
        name: of the file.
        replace: whether a row may be drawn more than once.

    Raises:
        MissingArtifactError: there is no finished output or, if asked for, no tree.
        ConfigError: the run has no clusters, or less than one row is wanted.
        TooFewRowsError: more rows are wanted than there are, without replacement.
    """
    run = _Run(root, balance)
    sizes = np.zeros(run.n_groups, np.int64)
    all_clusters = np.zeros(run.n_clusters, np.int64)
    for batch in run.blocks(*dict.fromkeys([run.column or "cluster", "cluster"])):
        sizes += np.bincount(run.groups(batch), minlength=run.n_groups)
        all_clusters += np.bincount(batch.column("cluster").to_numpy(), minlength=run.n_clusters)
    n_all = int(sizes.sum())
    if n_rows < 1:
        raise ConfigError(f"--rows: is {n_rows}, expected at least 1")
    if n_rows > n_all and not replace:
        raise TooFewRowsError(f"--rows: asks for {n_rows:,} of {n_all:,} rows; ask for fewer, or draw with --replace")

    expected = expected_rows(run.levels, sizes, n_rows, replace=replace)
    counts = np.minimum(whole_numbers(expected, np.random.default_rng(seed)), n_rows if replace else sizes)
    places = _places(sizes, counts, seed, replace=replace)
    weights = np.divide(sizes, expected, out=np.zeros(len(sizes)), where=expected > 0)
    clusters = np.zeros(run.n_clusters, np.int64)
    facts = {"run": root.uri, "rows": n_rows, "balance": balance, "replace": replace, "seed": seed}

    def write(sink: IO[bytes]) -> None:
        nonlocal clusters
        writer = None
        for batch, groups in _picked(run, places, sizes):
            table = pa.Table.from_batches([batch]).append_column("weight", pa.array(weights[groups]))
            clusters += np.bincount(batch.column("cluster").to_numpy(), minlength=run.n_clusters)
            if writer is None:
                schema = table.schema.with_metadata({"distspectral": json.dumps(facts)})
                writer = pq.ParquetWriter(sink, schema, compression="zstd")
            writer.write_table(table)
        assert writer is not None, "at least one row is drawn"
        writer.close()

    target.write_file(name, write)
    return Drawn(
        len(places), n_all, int(np.count_nonzero(sizes)), int(np.count_nonzero(counts)), all_clusters, clusters
    )


def _places(sizes: NDArray[np.int64], counts: NDArray[np.int64], seed: int, *, replace: bool) -> NDArray[np.int64]:
    """Return the places (S,), ascending, of the rows drawn if all rows stood leaf by leaf, in the order of the run.

    Args:
        sizes: (M,) rows of each leaf.
        counts: (M,) rows to draw of each.
        seed: of the draw; each leaf has a generator of its own.
        replace: whether a place may be drawn more than once.
    """
    firsts = np.cumsum(sizes) - sizes
    drawn = [np.empty(0, np.int64)]
    for leaf in np.flatnonzero(counts).tolist():
        rng, size, count = np.random.default_rng([seed, leaf]), int(sizes[leaf]), int(counts[leaf])
        chosen = rng.integers(0, size, count) if replace else rng.choice(size, count, replace=False, shuffle=False)
        drawn.append(firsts[leaf] + np.sort(chosen))
    return np.concatenate(drawn)


def _picked(
    run: _Run, places: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64]]]:
    """Yield the rows drawn, block by block where there are any, and the leaf of each."""
    upcoming = np.cumsum(sizes) - sizes  # place of each leaf's next row
    columns = ["id", *([LEAF] if run.column == LEAF else []), "cluster"]
    for batch in run.blocks(*columns):
        groups = run.groups(batch)
        order = np.argsort(groups, kind="stable")
        found, firsts, counts = np.unique(groups[order], return_index=True, return_counts=True)
        own = np.empty(len(groups), np.int64)
        own[order] = np.arange(len(groups)) - np.repeat(firsts, counts) + np.repeat(upcoming[found], counts)
        upcoming[found] += counts
        times = np.searchsorted(places, own, side="right") - np.searchsorted(places, own, side="left")
        rows = np.repeat(np.arange(len(groups)), times)
        if len(rows):
            yield batch.take(pa.array(rows)), groups[rows]
