"""One search in this process, measured: what ``distspectral.bench.graph`` starts once per method.

A small search first pays for imports and compilation; tuning of the peers is not counted either.
Shape letters: N rows, Q sampled queries, K neighbours.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.bench.graph import TRUTH, VECTORS
from distspectral.graph.config import GraphConfig
from distspectral.graph.facts import component_facts
from distspectral.graph.search.exact import squared_distances
from distspectral.graph.search.faiss_search import fast_products, import_faiss, knn
from distspectral.graph.search.through_cells import search_cells
from distspectral.graph.store import ArrayGraph, read_neighbors
from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors, Vectors

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]
WARM_UP_ROWS = 4000
EXACT_ROWS = 100_000
"""Above it, exact search is timed on a sample of queries and extrapolated; its components are then unknown (null)."""
PEER_RECALL = 0.985
"""What HNSW and IVF-Flat are tuned to, in steps of two."""


def distspectral(vectors: Vectors | Artifact, k: int, folder: str) -> Callable[[], Ids]:
    """Our cells, with defaults; their lists stay on disk until they are asked for."""
    artifact = Artifact(folder)
    found = search_cells(vectors, artifact, {}, GraphConfig(n_neighbors=k, metric="l2", method="cells"), local_map)
    print(json.dumps(found.metrics), file=sys.stderr)
    return lambda: np.concatenate([read_neighbors(artifact, shard.name)[0].astype(np.uint32) for shard in found.shards])


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
    with fast_products() as faiss:  # the peer's coarse search is spared what ours is spared
        index: Any = faiss.index_factory(rows.shape[1], f"IVF{int(4 * np.sqrt(len(rows)))},Flat")
        index.train(rows[:: max(1, len(rows) // (64 * index.nlist))])
        index.add(rows)

        def set_effort(effort: int) -> None:
            index.nprobe = effort

        return _tuned(index, rows, k, truth, set_effort, 8)


def exact(rows: Rows, k: int, truth: tuple[Ids, Rows]) -> Ids:
    """All pairs; of many rows only the sampled ones ask."""
    queries = rows if len(rows) <= EXACT_ROWS else rows[truth[0]]
    return knn(queries, rows, k + 1)[1]


def _tuned(index: Any, rows: Rows, k: int, truth: tuple[Ids, Rows], effort: Callable[[int], None], least: int) -> Ids:
    began = time.process_time(), time.perf_counter()
    step = least
    while True:
        effort(step)
        found = index.search(rows[truth[0]], k + 1)[1]
        if recall(ArrayVectors(rows), found, truth, k) >= PEER_RECALL or step >= 64 * least:
            break
        step *= 2
    NOT_COUNTED[0] += time.process_time() - began[0]
    NOT_COUNTED[1] += time.perf_counter() - began[1]
    result: Ids = index.search(rows, k + 1)[1]
    return result


NOT_COUNTED = [0.0, 0.0]
"""Core-seconds and wall seconds of tuning."""


def recall(vectors: Vectors, found: Ids, truth: tuple[Ids, Rows], k: int) -> float:
    """Return the share of the sampled rows' found neighbours (Q, K or K + 1) that are as near as the true k-th."""
    queries, limits = truth
    near = vectors.gather(np.maximum(found, 0).astype(np.int64).ravel())
    distances = squared_distances(vectors.gather(queries), near, np.arange(found.size).reshape(found.shape))
    good = (distances <= limits[:, None]) & (found >= 0) & (found != queries[:, None])
    return float(np.minimum(good.sum(axis=1), k).mean() / k)


def main(name: str, folder: str, k: int) -> dict[str, Any]:
    """Run one method on the vectors packed in ``folder`` and return what is reported of it."""
    vectors = MappedVectors(Artifact(folder).child(VECTORS))
    n_rows = vectors.n_rows
    with np.load(Path(folder, TRUTH)) as file:
        truth = file["queries"], file["limits"]
    few = vectors.gather(np.arange(min(WARM_UP_ROWS, n_rows)))
    k_few = min(k, len(few) - 1)
    search: Callable[[], Ids | Callable[[], Ids]]
    if name == "distspectral":
        distspectral(ArrayVectors(few), k_few, f"{folder}/warm-up")
        search = functools.partial(distspectral, Artifact(folder).child(VECTORS), k, f"{folder}/search")
    else:
        peer, rows = PEERS[name], vectors.gather(np.arange(n_rows))
        inside = truth[0] < len(few)
        peer(few, k_few, (truth[0][inside], truth[1][inside]))
        search = functools.partial(peer, rows, k, truth)
    NOT_COUNTED[:] = [0.0, 0.0]
    cpu, wall = time.process_time(), time.perf_counter()
    result = search()
    core_seconds = time.process_time() - cpu - NOT_COUNTED[0]
    wall_seconds = time.perf_counter() - wall - NOT_COUNTED[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = result() if callable(result) else result
    np.save(Path(folder, f"{name}.npy"), found)
    whole = len(found) == n_rows
    if not whole:
        core_seconds, wall_seconds = (seconds * n_rows / len(found) for seconds in (core_seconds, wall_seconds))
    return {
        "name": name,
        "recall": recall(vectors, found[truth[0]] if whole else found, truth, k),
        "components": _components(found) if whole else None,
        "core_seconds": core_seconds,
        "wall_seconds": wall_seconds,
        "peak_rss_bytes": peak,
    }


def _components(found: Ids) -> int:
    own = np.arange(len(found))[:, None]
    is_edge = (found >= 0) & (found != own)
    components: int = component_facts(ArrayGraph(np.maximum(found, 0), is_edge.astype(np.float16)))["components"]
    return components


PEERS = {"pynndescent": pynndescent, "faiss_hnsw": faiss_hnsw, "faiss_ivf_flat": faiss_ivf_flat, "exact": exact}

if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
