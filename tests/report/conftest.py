from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distspectral.report.data import ReportData
from distspectral.report.page import render

N_SAMPLED = 200
FINAL = [1e-7, 0.002, 0.004, 0.006, 0.05, 0.06]


def values(n_clusters: int = 4, **changes: Any) -> dict[str, Any]:
    """A run with everything in it, as plain values; ``changes`` replace top-level fields."""
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, n_clusters, N_SAMPLED)
    history = [
        {
            "step": 25 * (window + 1),
            "loss": 2.0 ** (-window),
            "ritz_values": [value + 0.1 * 2.0 ** (-window) for value in FINAL],
            "ritz_sum": sum(FINAL) + 0.6 * 2.0 ** (-window),
            "learning_rate": 1e-3,
            "edges_per_second": 11_000.0,
        }
        for window in range(12)
    ]
    return {
        "name": "two moons",
        "created_at": "2026-11-21T14:05:00+00:00",
        "version": "0.1.0",
        "config": {"data": {"source": "data/*.parquet"}, "train": {"hidden": [512, 256], "seed": 0}},
        "n_rows": 70_000,
        "dim": 784,
        "n_shards": 8,
        "dtype": "float32",
        "seconds": {"pack": 4.2, "graph": 71.0, "train": 49.8},
        "peak_rss_bytes": 3 * 2**29,
        "graph": {
            "n_neighbors": 10,
            "affinity": "self-tuning",
            "components": 3,
            "largest_component_share": 0.9998,
            "degree_min": 1.5,
            "degree_median": 9.75,
            "degree_max": 88.0,
            "degree_histogram": {"counts": [5, 60_000, 9_995], "edges": [1.5, 5.0, 20.0, 88.0]},
        },
        "training": {
            "steps": 300,
            "edges_per_second": 11_234.0,
            "stopped_because": "the Ritz sum no longer fell",
            "history": history,
        },
        "spectrum": {
            "ritz_values": FINAL,
            "n_kept": 4,
            "gaps": [0.0, 0.5, 0.33, 0.88, 0.17],
        },
        "clusters": {
            "n_clusters": n_clusters,
            "sizes": rng.multinomial(70_000, np.full(n_clusters, 1 / n_clusters)).tolist(),
            "mean_distance": rng.random(n_clusters).tolist(),
            "silhouette": [0.8] * n_clusters,
            "conductance": [0.0123] * n_clusters,
            "nearest": [-1] * n_clusters,
            "found_by": "7 of 10 runs of k-means reached the best solution",
        },
        "root": "/data/run's",
        "fingerprint": "f00d",
        "rows": {
            "x": rng.normal(size=N_SAMPLED).tolist(),
            "y": rng.normal(size=N_SAMPLED).tolist(),
            "cluster": clusters.tolist(),
            "leaf": clusters.tolist(),
            "labels": [f"moon {cluster}" for cluster in clusters],
            "ids": [f"row {row}" for row in range(N_SAMPLED)],
            "columns": {
                "text": [f"what row {row} says" for row in range(N_SAMPLED)],
                "kind": ["even" if row % 2 else None for row in range(N_SAMPLED)],
                "length": [None, *map(float, range(N_SAMPLED - 1))],
            },
        },
        "exemplars": {
            "cluster": list(range(n_clusters)),
            "kind": ["central"] * n_clusters,
            "ids": [str(cluster) for cluster in range(n_clusters)],
            "columns": {"text": [f"exemplar {cluster}" for cluster in range(n_clusters)]},
        },
        "tree": chain(n_clusters),
        "candidates": [
            {"n_clusters": n_clusters, "score": 0.41, "rise": 0.4, "gap": 0.1, "stability": 0.95},
            {"n_clusters": 7, "score": 0.2, "rise": 0.2, "gap": 0.0, "stability": 0.9},
        ],
        "confusion": {
            "counts": [[60_000 if label == cluster else 5 for cluster in range(n_clusters)] for label in range(2)],
            "classes": ["left", "right"],
        },
        "certificate": {
            "method": "polish",
            "converged": True,
            "passes": 22,
            "mean_sin2": 0.0312,
            "sin2": [0.0, 0.004, 0.003, 0.61],
            "near_sin2": [0.0, 0.004, 0.003, 0.02],
            "words": "function 4 is mixed with 5, whose eigenvalue is near <at the cut>",
        },
        "edges": {"drawn": 0.0120, "every": 0.0121, "unseen": 0.64, "advice": "they agree: both <are> low"},
        "evaluation": {"acc": 0.6812, "nmi": 0.7656, "ari": 0.6021},
        "checks": [
            {"title": "The learned functions", "status": "good", "words": "All 4 functions can be trusted."},
            {
                "title": "The graph",
                "status": "look",
                "words": "It is in 3 pieces.",
                "remedies": ["Raise graph.n_neighbors."],
                "clusters": [1],
            },
        ],
        **changes,
    }


def chain(n_leaves: int) -> dict[str, list[Any]]:
    """A tree that merges one leaf after the other into the rest, a cluster in each leaf."""
    ends = [(merger - 1 + n_leaves if merger else 0, merger + 1) for merger in range(n_leaves - 1)]
    return {
        "nodes": list(range(2 * n_leaves - 1)),
        "children": [end for pair in ends for end in pair],
        "rows": [10] * n_leaves + [10 * (merger + 2) for merger in range(n_leaves - 1)],
        "affinity": [1 / (merger + 2) for merger in range(n_leaves - 1)],
        "conductance": [0.1] * (2 * n_leaves - 1),
        "clusters": list(range(n_leaves)),
    }


@pytest.fixture(name="values")
def values_fixture() -> Any:
    return values


@pytest.fixture(scope="session")
def full() -> ReportData:
    return ReportData.model_validate(values())


@pytest.fixture(scope="session")
def full_page(full: ReportData) -> str:
    return render(full)
