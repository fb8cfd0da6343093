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


def parametric_umap(rows: Rows, new: Rows, seed: int) -> Layout:
    """ParametricUMAP by the recipe of umap-learn 0.5.12, re-made in torch; its own needs TensorFlow.

    UMAP's graph, each edge as often as UMAP would draw it, all of them shuffled into batches of 1,000, with five
    random others of the batch to each; three hidden layers of 100; Adam at 1e-3, gradients cut off at 4.
    Reference: Sainburg, McInnes, Gentner, Parametric UMAP embeddings for representation and semisupervised learning,
    Neural Computation 2021.
    """
    import torch
    from umap import UMAP

    fitted = UMAP(random_state=seed, n_jobs=1, transform_mode="graph").fit(rows)
    edges = fitted.graph_.tocoo()
    often = (500 if len(rows) <= 10_000 else 200) * edges.data
    often[often < edges.data.max()] = 0
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(edges.nnz), often.astype(int)))
    torch.manual_seed(seed)
    network, ends = _perceptron(rows.shape[1]), torch.from_numpy(np.stack([edges.row, edges.col]).astype(np.int64))
    optimizer, vectors = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7), torch.from_numpy(rows)
    batch = min(1_000, len(rows))
    for first in range(0, len(order) - batch + 1, batch):
        to, from_ = network(vectors[ends[:, order[first : first + batch]]])
        others = from_.repeat_interleave(5, 0)[torch.randperm(5 * batch)]
        apart = [(to - from_).norm(dim=1), (to.repeat_interleave(5, 0) - others).norm(dim=1)]
        near, far = (-torch.log1p(fitted._a * one.clamp(min=1e-6) ** (2 * fitted._b)) for one in apart)
        logs = torch.nn.functional.logsigmoid
        loss = -torch.cat([logs(near), logs(far) - far]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_value_(network.parameters(), 4.0)
        optimizer.step()
    with torch.no_grad():
        places = network(vectors).numpy()

    def place_new() -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(new)).numpy()

    return places, place_new


def _perceptron(dim: int) -> Any:
    """Return the untrained network of ParametricUMAP, with the first weights that Keras draws."""
    from torch import nn

    layers: list[Any] = []
    for n_in, n_out in ((dim, 100), (100, 100), (100, 100), (100, 2)):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        nn.init.xavier_uniform_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


def _warm_parametric_umap(rows: Rows, new: Rows, seed: int) -> Layout:
    """Import and compile all that it calls, without its training, which compiles nothing."""
    importlib.import_module("torch")
    return umap(rows, new, seed)


def opentsne(rows: Rows, new: Rows, seed: int) -> Layout:
    """t-SNE of the package openTSNE with its defaults, new rows by its ``transform``."""
    fitted = importlib.import_module("openTSNE").TSNE(random_state=seed, n_jobs=1).fit(rows)
    return np.asarray(fitted), lambda: np.asarray(fitted.transform(new))


def pacmap(rows: Rows, new: Rows, seed: int) -> Layout:
    """PaCMAP with its defaults, which has no place for new rows."""
    reducer = importlib.import_module("pacmap").PaCMAP(random_state=seed)
    return reducer.fit_transform(rows), lambda: np.full((len(new), 2), np.nan)


LAYOUTS: dict[str, Callable[[Rows, Rows, int], Layout]] = {
    "umap": umap,
    "parametric-umap": parametric_umap,
    "opentsne": opentsne,
    "pacmap": pacmap,
}
"""Methods that lay rows out in the plane, each compiled for on its first 5,000 rows."""
LAYOUT_WARM_UPS = {"parametric-umap": _warm_parametric_umap}
"""What compiles in place of the method itself."""

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
            if len(rows) not in warm_for:
                LAYOUT_WARM_UPS.get(name, LAYOUTS[name])(rows[:WARM_UP_ROWS], np.load(asked["new"]), seed)[1]()
                warm_for.add(len(rows))
            return _lay_out(LAYOUTS[name], rows, asked)
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


def _lay_out(method: Callable[[Rows, Rows, int], Layout], rows: Rows, asked: dict[str, Any]) -> dict[str, Any]:
    """Write the places of all rows, the new ones last; return what each part took."""
    new, seed = np.load(asked["new"]), asked["seed"]
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
