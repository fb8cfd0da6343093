"""One search in this process, measured: what ``distspectral.bench.graph`` starts once per method.

A small search first pays for imports and compilation; tuning of the peers is not counted either.
Shape letters: N rows, Q sampled queries, K neighbours.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.graph.build import each
from distspectral.graph.components import component_facts
from distspectral.graph.config import GraphConfig
from distspectral.graph.faiss_search import import_faiss
from distspectral.graph.search import search_cells
from distspectral.graph.solvers import squared_distances
from distspectral.graph.store import ArrayGraph, read_neighbors
from distspectral.storage.artifacts import Artifact
from distspectral.storage.vectors import ArrayVectors

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]
WARM_UP_ROWS = 4000
EXACT_ROWS = 100_000
"""Above it, exact search is timed on a sample of queries and extrapolated; its components are then unknown (null)."""
PEER_RECALL = 0.985
"""What HNSW and IVF-Flat are tuned to, in steps of two."""


def distspectral(rows: Rows, k: int, truth: tuple[Ids, Rows]) -> Ids:
    """Our cells."""
    del truth
    with tempfile.TemporaryDirectory(prefix="distspectral-") as folder:
        artifact = Artifact(folder)
        found = search_cells(ArrayVectors(rows), artifact, {}, GraphConfig(n_neighbors=k, method="cells"), each)
        print(json.dumps(found.metrics), file=sys.stderr)
        return np.concatenate([read_neighbors(artifact, shard.name)[0] for shard in found.shards])


def pynndescent(rows: Rows, k: int, truth: tuple[Ids, Rows]) -> Ids:
    """NN-descent on everything, with its own defaults; the row itself takes one of its k + 1 neighbours."""
    from pynndescent import NNDescent

    del truth
    index = NNDescent(rows, n_neighbors=k + 1, random_state=0)
    return np.asarray(index.neighbor_graph[0], np.int64)


def faiss_hnsw(rows: Rows, k: int, truth: tuple[Ids, Rows]) -> Ids:
    """HNSW with 16 links."""
    index = import_faiss().IndexHNSWFlat(rows.shape[1], 16)
    index.add(rows)

    def set_effort(effort: int) -> None:
        index.hnsw.efSearch = effort

    return _tuned(index, rows, k, truth, set_effort, 32)


def faiss_ivf_flat(rows: Rows, k: int, truth: tuple[Ids, Rows]) -> Ids:
    """Inverted lists, 4 sqrt(N) of them."""
    faiss: Any = import_faiss()
    index = faiss.index_factory(rows.shape[1], f"IVF{int(4 * np.sqrt(len(rows)))},Flat")
    index.train(rows[:: max(1, len(rows) // (64 * index.nlist))])
    index.add(rows)

    def set_effort(effort: int) -> None:
        index.nprobe = effort

    return _tuned(index, rows, k, truth, set_effort, 8)


def exact(rows: Rows, k: int, truth: tuple[Ids, Rows]) -> Ids:
    """All pairs; of many rows only the sampled ones ask."""
    queries = rows if len(rows) <= EXACT_ROWS else rows[truth[0]]
    found: Ids = import_faiss().knn(queries, rows, k + 1)[1]
    return found


def _tuned(index: Any, rows: Rows, k: int, truth: tuple[Ids, Rows], effort: Callable[[int], None], least: int) -> Ids:
    began = time.process_time(), time.perf_counter()
    step = least
    while True:
        effort(step)
        found = index.search(rows[truth[0]], k + 1)[1]
        if recall(rows, found, truth, k) >= PEER_RECALL or step >= 64 * least:
            break
        step *= 2
    NOT_COUNTED[0] += time.process_time() - began[0]
    NOT_COUNTED[1] += time.perf_counter() - began[1]
    result: Ids = index.search(rows, k + 1)[1]
    return result


NOT_COUNTED = [0.0, 0.0]
"""Core-seconds and wall seconds of tuning."""


def recall(rows: Rows, found: Ids, truth: tuple[Ids, Rows], k: int) -> float:
    """Return the share of the sampled rows' found neighbours (Q, K or K + 1) that are as near as the true k-th."""
    queries, limits = truth
    distances = squared_distances(rows[queries], rows, np.maximum(found, 0))
    good = (distances <= limits[:, None]) & (found >= 0) & (found != queries[:, None])
    return float(np.minimum(good.sum(axis=1), k).mean() / k)


def main(name: str, folder: str, k: int) -> dict[str, Any]:
    """Run one method on ``folder/vectors.npy`` and return what is reported of it."""
    search = globals()[name]
    rows = np.load(Path(folder, "vectors.npy"))
    with np.load(Path(folder, "truth.npz")) as file:
        truth = file["queries"], file["limits"]
    few = rows[:WARM_UP_ROWS]
    inside = truth[0] < len(few)
    search(few, min(k, len(few) - 1), (truth[0][inside], truth[1][inside]))
    NOT_COUNTED[:] = [0.0, 0.0]
    cpu, wall = time.process_time(), time.perf_counter()
    found = search(rows, k, truth)
    core_seconds = time.process_time() - cpu - NOT_COUNTED[0]
    wall_seconds = time.perf_counter() - wall - NOT_COUNTED[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    whole = len(found) == len(rows)
    if not whole:
        core_seconds, wall_seconds = (seconds * len(rows) / len(found) for seconds in (core_seconds, wall_seconds))
    return {
        "name": name,
        "recall": recall(rows, found[truth[0]] if whole else found, truth, k),
        "components": _components(found) if whole else None,
        "core_seconds": core_seconds,
        "wall_seconds": wall_seconds,
        "peak_rss_bytes": peak,
    }


def _components(found: Ids) -> int:
    own = np.arange(len(found))[:, None]
    neighbors = np.where(found < 0, own, found)
    components: int = component_facts(ArrayGraph(neighbors, (neighbors != own).astype(np.float32)))["components"]
    return components


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
