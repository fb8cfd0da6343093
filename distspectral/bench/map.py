"""Maps judged as layouts are: neighbourhoods kept, labels told apart in the plane, clusters placed to scale.

No label enters a map. Part of the rows is held out: nothing is fitted to it, and it is placed afterwards.
Shape letters: N rows, B rows held out, D features, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness

from distspectral.bench.baselines import LAYOUTS, Baseline
from distspectral.bench.quality import Scores
from distspectral.bench.suite import LabelledSet, Results, markdown, shown_score
from distspectral.config.load import parse_config
from distspectral.config.run import RunConfig
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError
from distspectral.graph.search.faiss_search import knn
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.new_rows import embed_new_rows
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.serving.run import Run
from distspectral.storage.source.dataset import Source

RESULTS = "maps.jsonl"
OURS = ("distspectral", "eigenfunctions")
METHODS = (*OURS, *LAYOUTS)
TITLES = {
    "distspectral": "**the map**, all defaults",
    "eigenfunctions": "two eigenfunctions",
    "umap": "UMAP",
    "parametric-umap": "ParametricUMAP, re-made in torch",
    "opentsne": "openTSNE",
    "pacmap": "PaCMAP",
}
KEPT, VOTERS = 15, 10
"""Neighbours looked for in the plane; those that vote on a row's label."""
JUDGED_ROWS = 5_000
"""Rows among which trustworthiness is computed, which takes a matrix of them; neighbours are looked for of as many."""
HELD_OUT_SHARE = 7
"""One row in so many is held out."""


def layout_scores(
    rows: NDArray[np.float32],
    places: NDArray[np.float32],
    labels: NDArray[Any],
    new: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]] | None = None,
) -> Scores:
    """Return what a layout keeps of its rows.

    Returns:
        ``trustworthiness``, of :data:`KEPT` neighbours among at most :data:`JUDGED_ROWS` rows; ``kept``, the share of
        a row's nearest that are among its nearest in the plane; ``accuracy`` of the label that most of
        :data:`VOTERS` nearest in the plane have; ``centres``, the rank correlation of the distances between the mean
        rows of labels with those in the plane. Of new rows the first three, as ``new_trustworthiness`` and so on:
        among each other, then with neighbours among the old ones.

    Args:
        rows: (N, D).
        places: (N, 2).
        labels: (N,).
        new: the same three of rows placed afterwards; None: there are none.
    """
    chosen = np.random.default_rng(0).permutation(len(rows))[:JUDGED_ROWS]
    one_of = np.unique(labels)
    coded = np.searchsorted(one_of, labels)
    in_rows, in_plane = (
        _others(space[chosen], space, chosen) for space in (rows, np.ascontiguousarray(places, np.float32))
    )
    scores = {
        "trustworthiness": _trustworthiness(rows[chosen], places[chosen]),
        "kept": _shared(in_rows, in_plane),
        "accuracy": float((_voted(coded, in_plane[:, :VOTERS]) == coded[chosen]).mean()),
    }
    if len(one_of) > 2:
        centres = [[space[coded == one].mean(0) for one in range(len(one_of))] for space in (rows, places)]
        scores["centres"] = float(spearmanr(pdist(np.stack(centres[0])), pdist(np.stack(centres[1])))[0])
    if new is not None and np.isfinite(new[1]).all():
        new_rows, new_places, new_labels = (part[:JUDGED_ROWS] for part in new)
        in_rows, in_plane = (
            knn(np.ascontiguousarray(new_space, np.float32), np.ascontiguousarray(space, np.float32), KEPT)[1]
            for new_space, space in ((new_rows, rows), (new_places, places))
        )
        scores |= {
            "new_trustworthiness": _trustworthiness(new_rows, new_places),
            "new_kept": _shared(in_rows, in_plane),
            "new_accuracy": float((one_of[_voted(coded, in_plane[:, :VOTERS])] == new_labels).mean()),
        }
    return scores


def _trustworthiness(rows: NDArray[np.float32], places: NDArray[np.float32]) -> float:
    return float(trustworthiness(rows, places, n_neighbors=min(KEPT, (len(rows) - 1) // 2)))


def _others(queries: NDArray[np.float32], base: NDArray[np.float32], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the K nearest (B, K) of rows that are in the base themselves."""
    _, found = knn(np.ascontiguousarray(queries), base, KEPT + 1)
    is_own = found == own[:, None]
    is_own[~is_own.any(1), -1] = True  # equal rows came before it
    others: NDArray[np.int64] = found[~is_own].reshape(len(queries), KEPT)
    return others


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    return float(np.mean((one[:, :, None] == other[:, None]).any(2)))


def _voted(coded: NDArray[np.int64], neighbors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label (B,) that most of the neighbours (B, K) have, the lowest of several."""
    votes = np.zeros((len(neighbors), coded.max() + 1), np.int64)
    np.add.at(votes, (np.arange(len(neighbors))[:, None], coded[neighbors]), 1)
    most: NDArray[np.int64] = votes.argmax(1)
    return most


def run_maps(
    sets: Sequence[LabelledSet],
    root: Path,
    seeds: Sequence[int],
    methods: Sequence[str],
    overrides: Sequence[str],
    engine: Callable[[RunConfig], Engine],
    most_rows: int | None = None,
    python: Path | None = None,
    on_result: Callable[[Scores], None] = lambda result: None,
) -> list[Scores]:
    """Return the results asked for, those of earlier calls among them: see :func:`layout_scores`.

    Args:
        sets: of labelled rows.
        root: of results and of our runs, ``SET-ROWS/seed-SEED``.
        seeds: of every method, and of which rows are held out.
        methods: of :data:`METHODS`.
        overrides: of our config.
        engine: who does our stages' work.
        most_rows: of a set, chosen by the seed; None: all.
        python: of the baselines' environment; None if no method needs it.
        on_result: called with each result that is new.

    Raises:
        ConfigError: there is no such method.
        MissingDependencyError: the environment lacks a method's package.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ConfigError(f"--method: {unknown[0]!r} is none of {', '.join(METHODS)}")
    results, asked = Results(root / RESULTS, on_result), []
    for one in sets:
        for seed in seeds:
            rows, labels = one.rows("", seed)
            order = np.random.default_rng(seed).permutation(len(rows))[:most_rows]
            cut = len(order) // HELD_OUT_SHARE
            old, held = np.sort(order[cut:]), order[:cut]
            for method in methods:
                key: dict[str, Any] = {"set": one.name, "rows": len(old), "seed": seed, "method": method}
                if method in OURS:
                    key["overrides"] = list(overrides)
                if not results.of(key):
                    if method in LAYOUTS:
                        assert python is not None, "the caller has made an environment for it"
                        with Baseline(python, method) as baseline:
                            places, took = baseline.lay_out(rows[old], rows[held], seed)
                    else:
                        place = root / f"{one.name}-{len(old)}" / f"seed-{seed}"
                        run = _run(place, rows[old], rows[held], seed, one.n_clusters, overrides, engine)
                        places, took = run[method], run["took"]
                    new = rows[held], places[len(old) :], labels[held]
                    results.add(key | layout_scores(rows[old], places[: len(old)], labels[old], new) | took)
                asked += results.of(key)
    return asked


def _run(
    place: Path,
    rows: NDArray[np.float32],
    new: NDArray[np.float32],
    seed: int,
    n_clusters: int,
    overrides: Sequence[str],
    engine: Callable[[RunConfig], Engine],
) -> dict[str, Any]:
    """Return the places (N + B, 2) on a run's map, by its two first functions, and what it ``took``.

    ``core_seconds`` are those of the whole run, clusters included, ``map_core_seconds`` those of the map alone.
    """
    for name, part in (("rows", rows), ("new", new)):
        if not (place / name).exists():
            write_vectors(str(place / name), part)
    values = {
        "name": "map",
        "root": f"{place}/run",
        "seed": seed,
        "data": {"path": f"{place}/rows", "id_column": "id"},
        "cluster": {"n_clusters": n_clusters},
    }
    config = parse_config(yaml.safe_dump(values), "bench map", overrides)
    started = engine(config)
    try:
        pipeline = Pipeline(config, Source.open(config.data), started, SilentObserver())
        pipeline.run()
        other = config.data.model_copy(update={"path": f"{place}/new"})
        embed_new_rows(pipeline, Source.open(other), f"{place}/new-output")
    finally:
        started.close()
    stages = {name: output.artifact.manifest().metrics for name, output in pipeline.chain.outputs.items()}
    spent = {name: sum(one["core_seconds"].values()) for name, one in stages.items()}
    run = Run(f"{place}/run")
    embedding, found = run.embedding()[:, 1:3], run.embed(new)
    return {
        "distspectral": np.concatenate([run.map(), np.stack([found["x"], found["y"]], axis=1)]),
        "eigenfunctions": np.concatenate([embedding, found["embedding"][:, 1:3]]),
        "took": {
            "core_seconds": sum(spent.values()),
            "map_core_seconds": spent["map"],
            "seconds": sum(one["seconds"] for one in stages.values()),
        },
    }


COLUMNS = {
    "trustworthiness": "trustworthiness",
    "kept": "neighbours kept",
    "accuracy": "label accuracy",
    "centres": "centres",
    "new_trustworthiness": "new: trustworthiness",
    "new_kept": "new: kept",
    "new_accuracy": "new: label accuracy",
    "core_seconds": "core-seconds",
}
"""How tables call what is measured."""


def tables(results: Sequence[Scores]) -> str:
    """Return a table in Markdown, a row for each set and method, of means over seeds."""
    body = []
    for one, n_rows in dict.fromkeys((result["set"], result["rows"]) for result in results):
        for method in METHODS:
            found = [r for r in results if (r["set"], r["rows"], r["method"]) == (one, n_rows, method)]
            if found:
                means = (_mean([r[key] for r in found if key in r], key) for key in COLUMNS)
                body.append([one, f"{n_rows:,}", TITLES[method], *means])
    return markdown([["set", "rows", "method", *COLUMNS.values()], *body])


def _mean(values: Sequence[float], key: str) -> str:
    if not values:
        return ""
    return f"{np.mean(values):,.0f}" if key == "core_seconds" else shown_score(float(np.mean(values)))
