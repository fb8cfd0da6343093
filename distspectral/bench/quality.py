"""Clusters beside those of other methods on labelled datasets: one config for all of ours, labels only to judge.

Shape letters: N rows, D features, C clusters.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics.cluster import contingency_matrix

from distspectral.bench.seeds import over_seeds
from distspectral.bench.spectrum import compare_with_exact
from distspectral.config.load import parse_config
from distspectral.config.run import RunConfig
from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.spectral.diagnostics import label_agreement
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source

SAMPLE_ROWS = 10_000
"""Rows that scikit-learn's spectral clustering and the package spectralnet get; all of MNIST takes them an hour."""

Scores = dict[str, Any]


def compare_quality(
    folder: str,
    root: str,
    seeds: Iterable[int],
    methods: Sequence[str],
    overrides: Sequence[str],
    engine: Callable[[RunConfig], Engine],
    held_out: int = 0,
    on_result: Callable[[Scores], None] = lambda result: None,
) -> list[Scores]:
    """Return one result per seed and method: ACC, NMI, ARI, wall-clock seconds, rows.

    Args:
        folder: shards with the columns vector and label.
        root: where our runs go, one directory a seed; finished stages are kept and their seconds are those of when
            they were made.
        seeds: of every method.
        methods: of :data:`METHODS`.
        overrides: of our config, for variants; none for the defaults.
        engine: who does our stages' work.
        held_out: last shards that are not trained on but embedded afterwards.
        on_result: called with each result as it comes.

    Raises:
        ConfigError: there is no such method, or no labels.
        MissingDependencyError: a method's package is not installed.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ConfigError(f"--method: {unknown[0]!r} is none of {', '.join(METHODS)}")
    source = Source.open(_config(folder, root, 0, 2, overrides).data)
    paths = list(dict.fromkeys(shard.uri for shard in source.shards))  # a large file is several shards
    if held_out >= len(paths):
        raise ConfigError(f"--held-out: is {held_out}, but {folder} has {len(paths)} shards; leave one to train on")
    met: set[str] = set()
    for block in (block for shard in source.shards for block in source.read_blocks(shard)):
        assert block.labels is not None, "the config names a label column"
        met.update(str(label) for label in pc.unique(block.labels).to_pylist())
    n_clusters = len(met)
    results: list[Scores] = []

    def add(name: str, seed: int, scores: Scores) -> None:
        results.append({"method": name, "seed": seed, **scores})
        on_result(results[-1])

    for seed in seeds:
        config = _config(folder, f"{root}/seed-{seed}", seed, n_clusters, overrides)
        data = config.data.model_copy(update={"path": paths[: len(paths) - held_out]})
        config = config.model_copy(update={"data": data})
        runner = engine(config)
        try:
            pipeline = Pipeline(config, Source.open(data), runner, SilentObserver())
            metrics = pipeline.run()
            add("distspectral", seed, _of_run(metrics))
            if held_out:
                other = data.model_copy(update={"path": paths[-held_out:]})
                manifest = pipeline.embed_other(Source.open(other), f"{root}/seed-{seed}/held-out")
                rows = {"n_rows": manifest.n_rows, "seconds": manifest.metrics["seconds"]}
                add("distspectral, held out", seed, {**manifest.metrics["agreement"], **rows})
        finally:
            runner.close()
        for name in methods:
            METHODS[name](pipeline, n_clusters, seed, add)
    return results


def summary(results: Iterable[Scores]) -> dict[str, dict[str, Any]]:
    """Return by method the mean and the standard deviation over seeds (0 of one) of each number."""
    results = list(results)
    shown = ("acc", "nmi", "ari", "seconds")
    means = over_seeds((one["method"], {score: one[score] for score in shown if score in one}) for one in results)
    n_rows = {one["method"]: one["n_rows"] for one in results}
    return {name: {**scores, "n_rows": n_rows[name]} for name, scores in means.items()}


def _config(folder: str, root: str, seed: int, n_clusters: int, overrides: Sequence[str]) -> RunConfig:
    text = f"name: quality\nroot: {root}\nseed: {seed}\ndata: {{path: {folder!r}, label_column: label}}\n"
    return parse_config(text + f"cluster: {{n_clusters: {n_clusters}}}", "bench quality", overrides)


def _of_run(metrics: Scores) -> Scores:
    seconds = metrics["seconds"]
    return {
        **metrics["embed"]["agreement"],
        "n_rows": metrics["n_rows"],
        "seconds": sum(seconds.values()),
        "stages": seconds,
        "peak_rss_bytes": metrics["peak_rss_bytes"],
        "explained_variance": metrics.get("codes", {}).get("explained_variance"),
        "inputs": metrics["calibrate"]["inputs"],
        **{key: metrics["cluster"][key] for key in ("restarts", "normalize_rows", "merged")},
    }


def _exact(pipeline: Pipeline, n_clusters: int, seed: int, add: Callable[[str, int, Scores], None]) -> None:
    """Our own graph's exact eigenvectors, clustered by our own recipe."""
    found = compare_with_exact(pipeline.chain.root)
    shown = {"n_rows": found["n_rows"], "seconds": found["exact_seconds"], "mean_sin2": found["mean_sin2"]}
    add("exact eigenvectors of our graph", seed, {**found["exact_agreement"], **shown})


def _kmeans(pipeline: Pipeline, n_clusters: int, seed: int, add: Callable[[str, int, Scores], None]) -> None:
    from sklearn.cluster import KMeans

    for stage in ("pack", "codes"):
        if stage in pipeline.chain.outputs:
            rows, labels = _rows(pipeline.chain.artifact(stage))
            model = KMeans(n_clusters, n_init=3, random_state=seed)
            add(f"k-means on {'vectors' if stage == 'pack' else stage}", seed, _timed(model.fit_predict, rows, labels))


def _scikit_learn(pipeline: Pipeline, n_clusters: int, seed: int, add: Callable[[str, int, Scores], None]) -> None:
    from sklearn.cluster import SpectralClustering

    rows, labels = _rows(pipeline.chain.artifact("pack"))
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE_ROWS]
    model = SpectralClustering(n_clusters, affinity="nearest_neighbors", random_state=seed)
    add("scikit-learn SpectralClustering", seed, _timed(model.fit_predict, rows[chosen], labels[chosen]))


def _umap(pipeline: Pipeline, n_clusters: int, seed: int, add: Callable[[str, int, Scores], None]) -> None:
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingDependencyError("umap-learn is not installed: pip install umap-learn") from error
    from sklearn.cluster import KMeans

    rows, labels = _rows(pipeline.chain.artifact("pack"))

    def clusters(matrix: NDArray[np.float32]) -> NDArray[np.int64]:
        embedded = UMAP(n_components=10, random_state=seed, n_jobs=1).fit_transform(matrix)
        found: NDArray[np.int64] = KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(embedded)
        return found

    add("UMAP and k-means", seed, _timed(clusters, rows, labels))


def _spectralnet(pipeline: Pipeline, n_clusters: int, seed: int, add: Callable[[str, int, Scores], None]) -> None:
    """The package spectralnet with its autoencoder, Siamese network and defaults, but for the width of its output.

    It gets values up to 1, as in its own examples: on MNIST's 0 to 255 its network ends in NaN.
    """
    import torch

    rows, labels = _rows(pipeline.chain.artifact("pack"))
    rows /= np.abs(rows).max()
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE_ROWS]

    def clusters(matrix: NDArray[np.float32]) -> NDArray[np.int64]:
        torch.manual_seed(seed)
        widths = [1024, 1024, 512, n_clusters]
        with _fresh_spectralnet() as spectralnet, contextlib.redirect_stdout(sys.stderr):  # it tells its progress there
            model = spectralnet.SpectralNet(
                n_clusters, should_use_ae=True, should_use_siamese=True, spectral_hiddens=widths
            )
            model.fit(torch.from_numpy(matrix))
            found: NDArray[np.int64] = model.predict(torch.from_numpy(matrix)).astype(np.int64)
        return found

    scores = _timed(clusters, rows[chosen], labels[chosen])
    add(f"spectralnet {version('spectralnet')}", seed, scores)


@contextlib.contextmanager
def _fresh_spectralnet() -> Iterator[Any]:
    """Yield the package spectralnet, imported from a copy that holds no weights.

    It keeps the weights of a fit inside itself, and takes those of an earlier one, on other rows, instead of training.
    """
    installed = importlib.util.find_spec("spectralnet")
    if installed is None or installed.origin is None:
        raise MissingDependencyError("spectralnet is not installed: pip install spectralnet")
    with tempfile.TemporaryDirectory(prefix="distspectral-") as folder:
        without_weights = shutil.ignore_patterns("*.pth")
        shutil.copytree(Path(installed.origin).parent, Path(folder, "spectralnet"), ignore=without_weights)
        sys.path.insert(0, folder)
        try:
            yield importlib.import_module("spectralnet")
        finally:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] == "spectralnet"]:
                del sys.modules[name]  # the next fit has a copy of its own


METHODS = {
    "exact": _exact,
    "k-means": _kmeans,
    "scikit-learn": _scikit_learn,
    "umap": _umap,
    "spectralnet": _spectralnet,
}
"""Beside ours, by the names that ``--method`` takes."""
DEFAULT_METHODS = ("exact", "k-means", "scikit-learn", "umap")


def _rows(vectors: Artifact) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return all rows (N, D) and their labels (N,)."""
    mapped = MappedVectors(vectors)
    labels = mapped.labels()
    assert labels is not None, "compare_quality asks for labels"
    return np.array(mapped.block(0, mapped.n_rows)), labels.to_numpy()


def _timed(
    clusters: Callable[[NDArray[np.float32]], NDArray[Any]], rows: NDArray[np.float32], labels: NDArray[Any]
) -> Scores:
    began = time.perf_counter()
    found = clusters(rows)
    seconds = time.perf_counter() - began
    return {**label_agreement(contingency_matrix(labels, found)), "n_rows": len(rows), "seconds": seconds}
