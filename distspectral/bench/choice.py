"""What the defaults choose without labels, beside every way they might have gone, judged by labels in hindsight.

Nothing but encoders is trained: eigenvectors are exact, so what differs is the choice.
Shape letters: N rows, D features, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics.cluster import contingency_matrix

from distspectral.bench.quality import Scores
from distspectral.bench.spectrum import exact_clusters
from distspectral.bench.suite import LabelledSet, Results, markdown, shown_score
from distspectral.clustering.fragmentation import Fragmentation
from distspectral.estimators.representation import Representation, represent_rows
from distspectral.estimators.spectral_net import SpectralNet
from distspectral.estimators.trainings import Trainings
from distspectral.graph.spectrum import exact_spectrum
from distspectral.spectral.diagnostics import label_agreement
from distspectral.storage.rows.vectors import ArrayVectors

RESULTS = "choice.jsonl"
AUTO, KMEANS = "auto", "k-means"
SPACES = {
    "rows": {"representation": "input", "metric": "l2"},
    "rows, centred cosine": {"representation": "input", "metric": "centered_cosine"},
    "components": {"representation": "pca", "metric": "l2"},
    "components, centred cosine": {"representation": "pca", "metric": "centered_cosine"},
    "codes": {"representation": "code", "metric": "l2"},
}
"""Where neighbours may be searched."""
WEIGHTS = {"": "euclidean", ", Siamese": "siamese"}
"""Whose distances may weigh the edges."""
FEWEST_FEATURES = 100
"""Of a row, twice the components, for which components are tried."""


def ways(dim: int) -> dict[str, dict[str, str]]:
    """Return the parameters of every way that is open to rows of ``dim`` features, by its name."""
    spaces = {name: said for name, said in SPACES.items() if said["representation"] != "pca" or dim >= FEWEST_FEATURES}
    return {
        f"{space}{weighed}": said | {"affinity_space": weights}
        for (space, said), (weighed, weights) in itertools.product(spaces.items(), WEIGHTS.items())
    }


def compare_choices(
    sets: Sequence[LabelledSet],
    root: Path,
    seeds: Sequence[int],
    on_result: Callable[[Scores], None] = lambda result: None,
) -> list[Scores]:
    """Return the scores of ``auto``, of every way and of k-means on rows; those of earlier calls are not made again.

    Args:
        sets: with labels.
        root: of the file of results.
        seeds: of the clusters; encoders have the first one.
        on_result: called with each result that is new.
    """
    results, asked = Results(root / RESULTS, on_result), []
    for one in sets:
        rows, labels = one.rows(AUTO, 0)
        parameters: dict[str, dict[str, str]] = {AUTO: {}, **ways(rows.shape[1]), KMEANS: {}}
        for way, said in parameters.items():
            key = {"set": one.name, "way": way, "seeds": list(seeds)}
            if not results.of(key):
                if way == KMEANS:
                    found, taken = k_means_of(rows, one, seeds), KMEANS
                else:
                    found, represented = clusters_of(rows, one, seeds, said)
                    taken = _taken(represented) if way == AUTO else way
                results.add(key | {"taken": taken} | _mean_agreement(labels, found))
            asked += results.of(key)
    return asked


def clusters_of(
    rows: NDArray[np.float32], one: LabelledSet, seeds: Sequence[int], said: dict[str, str]
) -> tuple[list[NDArray[np.int64]], Representation]:
    """Return clusters (N,) of each seed, in the exact eigenvectors of the graph that parameters of the fit make."""
    estimator = SpectralNet(one.n_clusters, random_state=seeds[0], verbose=False, **said)  # type: ignore[arg-type]
    recipe = estimator.recipe(rows.shape[1], len(rows))
    represented = represent_rows(ArrayVectors(rows), recipe, Trainings(verbose=False))
    graph = represented.graph
    values, vectors, _ = exact_spectrum(graph, recipe.n_components)
    in_parts = represented.facts["components"] > 1
    found = [exact_clusters(vectors, values, graph, one.n_clusters, recipe.cluster, seed, in_parts) for seed in seeds]
    return found, represented


def k_means_of(rows: NDArray[np.float32], one: LabelledSet, seeds: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return clusters (N,) of the rows as they are, of each seed."""
    return [KMeans(one.n_clusters, n_init=10, random_state=seed).fit_predict(rows) for seed in seeds]


def _taken(represented: Representation) -> str:
    """Return the name of the way that was taken where all was open."""
    facts, is_coded = represented.facts, "encoder" in represented.encoders
    has_components = facts.get("trial", {}).get("space") == "components"
    said = {
        "representation": ("pca" if has_components else "code") if is_coded else "input",
        "metric": facts["metric"],
    }
    space = next(name for name, one in SPACES.items() if one == said)
    judged = Fragmentation(**facts["fragmentation"])
    return space if judged.fragments else f"{space}, Siamese"


def _mean_agreement(labels: NDArray[Any], clusters: Sequence[NDArray[np.int64]]) -> dict[str, float]:
    found = [label_agreement(contingency_matrix(labels, one)) for one in clusters]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def summary(results: Iterable[Scores]) -> dict[str, Any]:
    """Return of each set what was taken and what was best, and over all sets the ``loss``: how much better that was.

    Returns:
        ``sets``: by name; ``mean_loss`` and ``worst_loss`` in ACC; ``below_k_means``: the sets where rows as they are
        are better by more than .01.
    """
    by_set: dict[str, dict[str, Scores]] = {}
    for one in results:
        by_set.setdefault(one["set"], {})[one["way"]] = one
    sets = {}
    for name, found in by_set.items():
        best = max((one for way, one in found.items() if way != KMEANS), key=lambda one: one["acc"])
        sets[name] = {
            "taken": found[AUTO]["taken"],
            "acc": found[AUTO]["acc"],
            "best": best["taken"],
            "best_acc": best["acc"],
            "k_means_acc": found[KMEANS]["acc"],
        }
    losses = [one["best_acc"] - one["acc"] for one in sets.values()]
    return {
        "sets": sets,
        "mean_loss": float(np.mean(losses)),
        "worst_loss": float(np.max(losses)),
        "below_k_means": [name for name, one in sets.items() if one["acc"] < one["k_means_acc"] - 0.01],
    }


def table(results: Iterable[Scores]) -> str:
    """Return :func:`summary` as a table in Markdown, with a sentence."""
    found = summary(results)
    head = ["set", "`auto` takes", "ACC", "best in hindsight", "ACC", "k-means on rows"]
    rows = []
    for name, one in found["sets"].items():
        best = "the same" if one["best"] == one["taken"] else one["best"]
        acc, best_acc, k_means_acc = (shown_score(one[key]) for key in ("acc", "best_acc", "k_means_acc"))
        rows.append([name, one["taken"], acc, best, best_acc, k_means_acc])
    mean, worst = shown_score(found["mean_loss"]), shown_score(found["worst_loss"])
    below = ", ".join(found["below_k_means"]) or "none"
    return f"{markdown([head, *rows])}\n\nMean loss {mean}, worst {worst}. Below k-means by more than .01: {below}."
