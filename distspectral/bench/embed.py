"""The stage ``embed`` beside a bare torch loop over the same Parquet: rows per second and memory of either.

The bare loop is what one would write by hand: ``pyarrow`` reads the vector column of each shard in batches, without
checks and without copying, the same network runs under ``torch.inference_mode``, and its outputs are thrown away. It
writes nothing and finds no clusters. Ours is the stage as a run calls it, from loading the model to the manifest: every
value checked, clusters and distances found, all of it written, compressed and synced to disk. Both have batches of the
same size and as many threads, run one after the other in processes of their own that have imported and computed before
the clock starts, and find the shards in the page cache.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch.utils.dlpack import from_dlpack

from distspectral.bench.apart import measure_apart
from distspectral.bench.machine import describe_machine
from distspectral.bench.random_model import RandomModel
from distspectral.datasets import write_shards
from distspectral.models.networks import torch_device
from distspectral.models.state import write_state
from distspectral.orchestration.memory import PeakMemory
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.embed import EmbedConfig, Models, embed
from distspectral.stages.tree_files import LEAVES, OUTLIERS
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.dataset import Source, SourceConfig

ROWS_PER_SHARD = 1 << 18
WARM_UP_BATCHES = 3


def compare_embedding(
    n_rows: int, dim: int, config: EmbedConfig, threads: int, rounds: int, folder: str | None = None
) -> dict[str, Any]:
    """Return rates, their ratio, peak memory and what the stage's time went into.

    Args:
        n_rows: N, random.
        dim: D; the network is D-512-512-10 with random weights.
        config: of the stage; the bare loop takes its batch size.
        threads: of torch, in either process.
        rounds: runs of either, in turns; medians count.
        folder: keeps the rows, and takes those it has; None: a temporary one.

    Raises:
        DistSpectralError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="distspectral-embed-") as scratch:
        rows = write_random(f"{folder or scratch}/rows-{n_rows}x{dim}", n_rows, dim)
        _write_model(Artifact(scratch), dim)
        measured: dict[str, list[dict[str, Any]]] = {"bare": [], "ours": []}
        for _ in range(rounds):
            for name, results in measured.items():
                arguments = name, rows, scratch, config.model_dump_json()
                module = "distspectral.bench.embed"
                results.append(measure_apart(f"bench embed: {name}", module, *arguments, threads=threads))
    rates = {name: statistics.median(one["rows_per_second"] for one in results) for name, results in measured.items()}
    peaks = {name: max(one["peak_rss_bytes"] for one in results) for name, results in measured.items()}
    spent = {name: statistics.median(one["core_seconds"] for one in results) for name, results in measured.items()}
    busy = measured["ours"][-1]["busy_seconds"]
    return {
        "rows": n_rows,
        "dim": dim,
        "batch_rows": config.batch_rows,
        "threads": threads,
        "rows_per_second": rates["ours"],
        "ratio_to_bare": rates["ours"] / rates["bare"],
        "peak_rss_bytes": peaks["ours"],
        "bare_rows_per_second": rates["bare"],
        "bare_peak_rss_bytes": peaks["bare"],
        "core_seconds": spent["ours"],
        "bare_core_seconds": spent["bare"],
        "busy_seconds": busy,
        "write_share": busy["write"] / sum(busy.values()),
        "output_bytes_per_row": measured["ours"][-1]["output_bytes"] / n_rows,
        "machine": describe_machine(),
    }


def write_random(folder: str, n_rows: int, dim: int, rows_per_shard: int = ROWS_PER_SHARD) -> str:
    """Write rows of white noise as Parquet shards with a column ``vector``; a shard that is there is kept."""

    def rows(start: int, stop: int) -> dict[str, NDArray[np.float32]]:
        return {"vector": np.random.default_rng([0, start]).standard_normal((stop - start, dim), np.float32)}

    sizes = [min(rows_per_shard, n_rows - start) for start in range(0, n_rows, rows_per_shard)]
    write_shards(folder, sizes, rows, keep=True)
    return folder


def _write_model(root: Artifact, dim: int) -> None:
    """Write artifacts ``model``, ``clusters`` and ``tree`` of random numbers."""
    embedder = RandomModel(dim).embedder()
    model, clusters, tree = (Output(root.child(name), name, "bench", {}, {}) for name in ("model", "clusters", "tree"))
    model.begin()
    write_state(model.artifact, "model.pt", embedder.network.state())
    properties = {"dim": dim, "n_components": RandomModel.n_components, "frame": Frame().properties()}
    model.commit([], properties, {})
    clusters.begin()
    write_state(clusters.artifact, "clusters.pt", embedder.assigner.state())
    clusters.commit([], {"n_clusters": RandomModel.n_clusters}, {})
    tree.begin()
    write_state(tree.artifact, LEAVES, embedder.assigner.leaf_state())
    write_state(tree.artifact, OUTLIERS, embedder.outliers.state_dict())
    tree.commit([], {}, {})


def bare(rows: str, folder: Artifact, config: EmbedConfig) -> dict[str, Any]:
    """Run the bare loop; return nothing but that it ran."""
    network = load_calibrated_network(folder.child("model")).to(torch_device("auto"))
    device = next(network.parameters()).device
    with torch.inference_mode():
        for path in sorted(Path(rows).glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(config.batch_rows, columns=["vector"]):
                vectors: torch.Tensor = from_dlpack(batch.column(0).flatten())
                network(vectors.view(batch.num_rows, -1).to(device)).cpu()
    return {}


def ours(rows: str, folder: Artifact, config: EmbedConfig) -> dict[str, Any]:
    """Run the stage; return what it says of its time, and the bytes it wrote."""
    output = Output(folder.child("output"), "embed", "bench", config.model_dump(mode="json"), {})
    source = Source.open(SourceConfig(path=rows))
    models = Models(*(folder.child(name) for name in ("model", "clusters", "tree")))
    manifest = embed(source, models, output, config)
    return {
        "busy_seconds": manifest.metrics["busy_seconds"],
        "output_bytes": sum(shard.n_bytes for shard in manifest.shards),
    }


LOOPS: dict[str, Callable[[str, Artifact, EmbedConfig], dict[str, Any]]] = {"bare": bare, "ours": ours}


def main(name: str, rows: str, folder: str, config: str) -> None:
    """Run one of the loops and print what it took as a line of JSON."""
    settings, threads = EmbedConfig.model_validate_json(config), int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    network = load_calibrated_network(Artifact(folder).child("model"))
    with torch.inference_mode(), threadpool_limits(threads):
        for _ in range(WARM_UP_BATCHES):
            network(torch.zeros(settings.batch_rows, network.dim))
    n_rows = Source.open(SourceConfig(path=rows)).n_rows
    with PeakMemory(0.1) as memory:
        began, spent = time.perf_counter(), time.process_time()
        facts = LOOPS[name](rows, Artifact(folder), settings)
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
    facts |= {"rows_per_second": n_rows / seconds, "core_seconds": spent, "peak_rss_bytes": memory.peak_bytes}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
