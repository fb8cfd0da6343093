"""A few of the user's rows in a scratch folder, the config of a small run over them, and the disk under it.

Shape letters: N rows, S sampled rows, D features.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distspectral.config.run import RunConfig
from distspectral.datasets import write_vectors
from distspectral.errors import TooFewRowsError
from distspectral.storage.rows.block import Block
from distspectral.storage.source.dataset import Source
from distspectral.storage.source.framing import framed
from distspectral.storage.source.shards import SourceShard

SAMPLE_ROWS, SAMPLE_BYTES = 40_000, 128 << 20
"""Most rows of the sample, and most bytes of them as float32."""
SAMPLE_SHARDS = 8
"""Shards that the sample is read from, evenly spaced; each gives its first rows, by its size."""
BLOCK_ROWS = 1 << 12
STEPS, WINDOW = 24, 8
"""Steps of each timing of a training; the first window warms up."""
PROBE_BYTES = 256 << 20
"""Written and read back to time the disk."""


def sampled_shards(source: Source) -> list[SourceShard]:
    """Return the shards that the sample is read from."""
    places = np.unique(np.linspace(0, len(source.shards) - 1, SAMPLE_SHARDS).astype(int))
    return [source.shards[place] for place in places]


def _blocks(source: Source, most: int) -> Iterator[Block]:
    """Yield blocks of the sampled shards' first rows, about so many rows of them all."""
    shards = sampled_shards(source)
    there = sum(shard.n_rows for shard in shards)
    for shard in shards:
        wanted = -(-min(most, there) * shard.n_rows // there)
        n_blocks = -(-wanted // BLOCK_ROWS)
        yield from itertools.islice(source.read_blocks(shard, -(-wanted // n_blocks), []), n_blocks)


def copy_sample(source: Source, folder: str, rows: int = SAMPLE_ROWS) -> tuple[float, int]:
    """Write a sample of at most about so many rows, framed, as Parquet.

    Returns:
        Microseconds of reading a row from the source, and the rows there are.

    Raises:
        TooFewRowsError: none of them can be used.
    """
    most = min(source.n_rows, rows, max(SAMPLE_BYTES // (4 * source.dim), 1))
    us, blocks = read_us(framed(source), most)
    if not blocks:
        raise TooFewRowsError(
            f"{source.shards[0].uri}: none of the sampled rows can be used; check data.column", ["data.column"]
        )
    vectors = np.concatenate([block.vectors for block in blocks])
    labels = None
    if source.label_type is not None:
        labels = pa.concat_arrays([block.labels for block in blocks]).to_numpy(zero_copy_only=False)
    write_vectors(folder, vectors, labels=labels)
    return us, len(vectors)


def read_us(source: Source, most: int) -> tuple[float, list[Block]]:
    """Return microseconds of reading a row, and the blocks of at most so many rows of the sample."""
    began = time.process_time()
    blocks = list(_blocks(source, most))
    n_rows = sum(block.n_rows for block in blocks)
    return (time.process_time() - began) * 1e6 / max(n_rows, 1), blocks


def brief_config(config: RunConfig, n_rows: int, scratch: str, source: Source) -> RunConfig:
    """Return the config of the measured run: the sample, few steps, cells, one process, codes where they may be."""
    recipe = config.recipe(source.dim)
    steps = {"max_steps": STEPS, "window_steps": WINDOW, "warmup_steps": 1, "patience": 0, "checkpoint_steps": STEPS}
    brief = {**steps, "device": "auto"}  # of this machine, whatever the planned ones have
    data = {"path": f"{scratch}/data", "format": "parquet", "column": "vector", "scale": 1.0}
    data |= {"id_column": "id", "label_column": None if source.label_type is None else "label", "carry": ()}
    in_cells = config.graph.method != "exact" and config.graph.metric != "inner_product"
    representation = config.representation
    if representation == "auto":
        representation = "code" if recipe.searched == "codes" else "input"
    updates: dict[str, Any] = {
        "root": f"{scratch}/run",
        "data": config.data.model_copy(update=data),
        "representation": representation,
        "graph": config.graph.model_copy(
            update={"path": None, "device": "auto"} | ({"method": "cells"} if in_cells else {})
        ),
        "evaluate": config.evaluate.model_copy(update={"device": "auto"}),
        "ray": config.ray.model_copy(update={"enabled": False}),
    }
    for section in recipe.trainings:
        updates[section] = getattr(config, section).model_copy(update=brief)
    if config.graph.path is not None:  # of all rows, so the sample's is searched
        updates["affinity"] = config.affinity.model_copy(
            update={
                "kind": "gaussian" if config.affinity.kind == "precomputed" else config.affinity.kind,
                "space": "siamese" if config.affinity.space == "siamese" else "euclidean",
            }
        )
    if isinstance(config.dscl.train_classes, int):
        updates["dscl"] = config.dscl.model_copy(update={"train_classes": "half"})
    if isinstance(config.cluster.n_clusters, int) and config.cluster.n_clusters > n_rows:
        updates["cluster"] = config.cluster.model_copy(update={"n_clusters": n_rows})
    return config.model_copy(update=updates)


# ---- the disk ----------------------------------------------------------------------------------------------------


def disk_rates(folder: str, probe_bytes: int = PROBE_BYTES) -> tuple[float, float]:
    """Return bytes per second written to, and read from, the disk under a folder, its cache left out.

    Where the system cannot be told to forget cached pages, reading is timed with them.
    """
    path, chunk = Path(folder, "probe"), os.urandom(1 << 22)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as stream:
        for _ in range(probe_bytes // len(chunk)):
            stream.write(chunk)
        os.fsync(stream.fileno())
        write = probe_bytes / (time.perf_counter() - began)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as stream:
        while stream.read(1 << 22):
            pass
    read = probe_bytes / (time.perf_counter() - began)
    path.unlink()
    return write, read
