"""Other people's clusterings, one method a process: a script for ``python -I`` of the baselines' own environment.

It imports nothing of this package, and a method's packages only when it runs. It is asked by lines of JSON on stdin:
``rows`` (a .npy of (N, D) float32), ``n_clusters``, ``seed`` and ``labels`` (a .npy to write (N,) int64 to, -1 for a
row left out), and answers each by a line: seconds, or ``error`` and ``missing``. Imports and compilation, a hundred
core-seconds in UMAP, are paid for on a sample first, once a process, and not counted.
Shape letters: N rows, D features, C clusters, K neighbours.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rows = Any  # (N, D) float32; NumPy's types are not checked in another environment
Labels = Any  # (N,) int64
Layout = tuple[Any, Callable[[], Any]]  # places (N, 2), and what computes those of the new rows, (B, 2)

WARM_UP_ROWS = 5_000
"""Enough that UMAP takes its approximate search, which it does from 4,096 rows, and compiles that."""
FEW_ROWS = 1_000
"""Enough for imports."""
EXACT_ROWS = 20_000
"""Rows up to which Leiden's neighbours are searched exactly."""
NEIGHBORS = 15
SCANS = 24
"""Resolutions that Leiden is tried with at most."""


def kmeans(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """k-means, three restarts."""
    from sklearn.cluster import KMeans

    return KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(rows)


def scikit_learn(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """Spectral clustering of the graph of nearest neighbours."""
    from sklearn.cluster import SpectralClustering

    return SpectralClustering(n_clusters, affinity="nearest_neighbors", random_state=seed).fit_predict(rows)


def umap_kmeans(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """UMAP to 10 dimensions with its defaults, k-means."""
    from sklearn.cluster import KMeans
    from umap import UMAP

    embedded = UMAP(n_components=10, random_state=seed, n_jobs=1).fit_transform(rows)
    return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(embedded)


def umap_hdbscan(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """UMAP as its manual sets it for clusters, HDBSCAN with clusters of at least a tenth of the mean class."""
    from sklearn.cluster import HDBSCAN
    from umap import UMAP

    embedded = UMAP(n_neighbors=30, min_dist=0.0, n_components=10, random_state=seed, n_jobs=1).fit_transform(rows)
    return HDBSCAN(min_cluster_size=max(5, len(rows) // (10 * n_clusters)), min_samples=10).fit_predict(embedded)


def leiden(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """Modularity on the graph of 15 nearest neighbours (W + W'), at the resolution that gives C communities."""
    import igraph
    from scipy.sparse import coo_matrix, triu

    neighbors = _exact_neighbors(rows) if len(rows) <= EXACT_ROWS else _approximate_neighbors(rows, seed)
    heads = np.repeat(np.arange(len(rows)), neighbors.shape[1])
    directed = coo_matrix((np.ones(len(heads)), (heads, neighbors.ravel())), (len(rows), len(rows)))
    edges = triu(directed + directed.T, 1, format="coo")
    graph = igraph.Graph(n=len(rows), edges=np.column_stack([edges.row, edges.col]))
    weights = edges.data.tolist()

    def communities(resolution: float) -> Labels:
        igraph.set_random_number_generator(random.Random(seed))
        found = graph.community_leiden("modularity", weights=weights, resolution=resolution, n_iterations=10)
        return np.asarray(found.membership, np.int64)

    return scan(communities, n_clusters)


def scan(communities: Callable[[float], Labels], n_clusters: int) -> Labels:
    """Return the communities (N,) at the resolution where they are C, else those whose number is nearest to it.

    The number grows with the resolution, but for noise: doubled or halved until C is between, then bisected.
    """
    low, high, resolution = 0.0, float("inf"), 1.0
    nearest: Labels = None
    missed = 0
    for _ in range(SCANS):
        found = communities(resolution)
        n_found = len(np.unique(found))
        if nearest is None or abs(n_found - n_clusters) < missed:
            nearest, missed = found, abs(n_found - n_clusters)
        if missed == 0:
            break
        if n_found < n_clusters:
            low = resolution
        else:
            high = resolution
        if low == 0:
            resolution /= 2
        else:
            resolution = 2 * low if high == float("inf") else (low * high) ** 0.5
    return nearest


def _exact_neighbors(rows: Rows) -> Any:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(rows) - 1), algorithm="brute").fit(rows)
    return search.kneighbors(return_distance=False)


def _approximate_neighbors(rows: Rows, seed: int) -> Any:
    from pynndescent import NNDescent

    return NNDescent(rows, n_neighbors=NEIGHBORS + 1, random_state=seed).neighbor_graph[0][:, 1:]


def evoc(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """EVoC, which finds the number of clusters by itself."""
    from evoc import EVoC

    return EVoC(random_state=seed).fit_predict(rows)


def spectralnet(rows: Rows, n_clusters: int, seed: int) -> Labels:
    """The package spectralnet with its autoencoder, Siamese network and defaults, but for the width of its output.

    It gets values up to 1, as in its own examples: on MNIST's 0 to 255 its network ends in NaN. It keeps the weights of
    a fit inside itself and takes those of an earlier one, on other rows, instead of training: a copy without any runs.
    """
    import torch

    installed = importlib.util.find_spec("spectralnet")
    if installed is None or installed.origin is None:
        raise ModuleNotFoundError("No module named 'spectralnet'", name="spectralnet")
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(installed.origin).parent
        shutil.copytree(package, Path(folder, "spectralnet"), ignore=shutil.ignore_patterns("*.pth"))
        sys.path.insert(0, folder)
        module: Any = importlib.import_module("spectralnet")
        widths = [1024, 1024, 512, n_clusters]
        model = module.SpectralNet(n_clusters, should_use_ae=True, should_use_siamese=True, spectral_hiddens=widths)
        scaled = torch.from_numpy(rows / np.abs(rows).max())
        model.fit(scaled)
        return model.predict(scaled)


def umap(rows: Rows, new: Rows, seed: int) -> Layout:
    """UMAP to the plane with its defaults, new rows by its ``transform``."""
    from umap import UMAP

    fitted = UMAP(random_state=seed, n_jobs=1).fit(rows)
    return fitted.embedding_, lambda: fitted.transform(new)


def opentsne(rows: Rows, new: Rows, seed: int) -> Layout:
    """t-SNE of the package openTSNE with its defaults, new rows by its ``transform``."""
    fitted = importlib.import_module("openTSNE").TSNE(random_state=seed, n_jobs=1).fit(rows)
    return np.asarray(fitted), lambda: np.asarray(fitted.transform(new))


def pacmap(rows: Rows, new: Rows, seed: int) -> Layout:
    """PaCMAP with its defaults, which has no place for new rows."""
    reducer = importlib.import_module("pacmap").PaCMAP(random_state=seed)
    return reducer.fit_transform(rows), lambda: np.full((len(new), 2), np.nan)


LAYOUTS: dict[str, Callable[[Rows, Rows, int], Layout]] = {"umap": umap, "opentsne": opentsne, "pacmap": pacmap}
"""Methods that lay rows out in the plane, each compiled for on its first 5,000 rows."""

METHODS: dict[str, Callable[[Rows, int, int], Labels]] = {
    "k-means": kmeans,
    "umap-kmeans": umap_kmeans,
    "umap-hdbscan": umap_hdbscan,
    "scikit-learn": scikit_learn,
    "leiden": leiden,
    "evoc": evoc,
    "spectralnet": spectralnet,
}


def _warm_leiden(rows: Rows, n_clusters: int, seed: int) -> None:
    leiden(rows[:FEW_ROWS], n_clusters, seed)
    if len(rows) > EXACT_ROWS:
        _approximate_neighbors(rows[:WARM_UP_ROWS], seed)


WARM_UPS: dict[str, Callable[[Rows, int, int], Any]] = {
    "k-means": lambda rows, n_clusters, seed: kmeans(rows[:FEW_ROWS], n_clusters, seed),
    "umap-kmeans": lambda rows, n_clusters, seed: umap_kmeans(rows[:WARM_UP_ROWS], n_clusters, seed),
    "umap-hdbscan": lambda rows, n_clusters, seed: umap_hdbscan(rows[:WARM_UP_ROWS], n_clusters, seed),
    "scikit-learn": lambda rows, n_clusters, seed: scikit_learn(rows[:FEW_ROWS], n_clusters, seed),
    "leiden": _warm_leiden,
    "evoc": lambda rows, n_clusters, seed: evoc(rows[:WARM_UP_ROWS], n_clusters, seed),
    "spectralnet": lambda rows, n_clusters, seed: importlib.import_module("torch"),
}
"""What imports and compiles, called first for every other number of rows: that decides which path a method takes."""


def core_seconds() -> float:
    """Return what this process and its ended children have had of all cores."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def answer(name: str, asked: dict[str, Any], warm_for: set[int]) -> dict[str, Any]:
    """Run a method, write its labels or places and return what it took.

    Args:
        name: of :data:`METHODS` or :data:`LAYOUTS`.
        asked: a line of stdin.
        warm_for: numbers of rows that the method is compiled for; grows.
    """
    rows, seed = np.load(asked["rows"]), asked["seed"]
    try:
        if name in LAYOUTS:
            return _lay_out(LAYOUTS[name], rows, asked, len(rows) not in warm_for, warm_for)
        n_clusters = asked["n_clusters"]
        if len(rows) not in warm_for:
            WARM_UPS[name](rows, n_clusters, seed)
            warm_for.add(len(rows))
        spent, clock = core_seconds(), time.perf_counter()
        labels = METHODS[name](rows, n_clusters, seed)
        took = {"core_seconds": core_seconds() - spent, "seconds": time.perf_counter() - clock}
    except ModuleNotFoundError as error:
        return {"missing": error.name, "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    np.save(asked["labels"], np.asarray(labels, np.int64))
    return took


def _lay_out(
    method: Callable[[Rows, Rows, int], Layout], rows: Rows, asked: dict[str, Any], cold: bool, warm_for: set[int]
) -> dict[str, Any]:
    """Write the places of all rows, the new ones last; return what each part took."""
    new, seed = np.load(asked["new"]), asked["seed"]
    if cold:
        method(rows[:WARM_UP_ROWS], new, seed)[1]()
        warm_for.add(len(rows))
    spent, clock = core_seconds(), time.perf_counter()
    places, place_new = method(rows, new, seed)
    took = {"core_seconds": core_seconds() - spent, "seconds": time.perf_counter() - clock}
    spent = core_seconds()
    found = place_new()
    np.save(asked["places"], np.concatenate([places, found]).astype(np.float32))
    return took | {"new_core_seconds": core_seconds() - spent}


def main(name: str) -> None:
    """Answer lines of stdin until it ends; what packages print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        warm_for: set[int] = set()
        for line in sys.stdin:
            print(json.dumps(answer(name, json.loads(line), warm_for)), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
