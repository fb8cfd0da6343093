"""What neighbours are searched in where the config leaves it open: rows or their components, under which metric.

A trial on sampled rows tells without labels. Half of the features, drawn at random, finds each row's neighbours; the
mean of these must then predict the other half. The share of the variance that it predicts falls where neighbours are
near by chance: where hubs are near to all, or where noise of many features drowns the few that tell rows apart. Rows
as they are stand unless another way predicts clearly more. The sample, the halves and the searches depend on row
numbers and the seed alone: whoever tries again decides alike.

Reference: Batson, Royer, Webber, *Molecular cross-validation for single-cell RNA-seq*, 2019; its halves are of
counts, ours of features.

Shape letters: N rows, D features, n sampled rows, H features of a half, K neighbours, E components.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from distspectral.graph.config import GraphConfig, Metric
from distspectral.graph.search.all_pairs import all_pairs
from distspectral.graph.search.duplicates import row_hashes, sparse_row_hashes
from distspectral.graph.search.sampling import sampled
from distspectral.storage.rows.joined import sparse_rows, subset
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors, Vectors

logger = logging.getLogger(__name__)

Space = Literal["rows", "components"]

TRIAL_ROWS = 4_000
"""Rows of a trial at most."""
LEAST_ROWS, LEAST_DIM = 200, 10
"""Different rows, and features, below which there is no trial: either half must tell rows apart."""
MOST_FEATURES = 1 << 13
"""Features that are halved; of wider rows as many are drawn."""
HALVINGS = 2
"""Times that features are halved; what is predicted is the mean."""
CLEARLY = 1.1
"""How many times as much another way must predict to be taken, and a more intricate one than a simpler one.

On worm neurons, blood cells and generated counts, where rows as they are make bad graphs, the best way predicts 1.2 to
2.1 times as much; on fourteen sets of images, texts, spectra, pen strokes and rings at most 1.01 times."""
SEED_STEP = 3
"""Other rows than those that cells are tuned by."""
UNIT = 1e-3
"""How far lengths may be from 1 for rows to count as of length 1; their halves are then made so too."""

NAMES: dict[Metric, str] = {
    "l2": "Euclidean",
    "cosine": "cosine",
    "centered_cosine": "centred cosine",
    "inner_product": "inner product",
}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to search neighbours."""

    space: Space
    metric: Metric

    @property
    def name(self) -> str:
        """In manifests: ``rows, l2``."""
        return f"{self.space}, {self.metric}"

    @property
    def in_words(self) -> str:
        """In sentences."""
        among = "of rows" if self.space == "rows" else "among principal components"
        return f"{NAMES[self.metric]} {among}"


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a trial found and decided.

    Attributes:
        space: what neighbours are searched in.
        metric: by which distance.
        n_rows: n; 0 where there was nothing to try, or too few different rows.
        predicted: R^2 of the other half of the features, by the name of each way that was tried.
    """

    space: Space
    metric: Metric
    n_rows: int
    predicted: dict[str, float]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Return the trial that wrote these properties; others beside them are left out."""
        return cls(**{field.name: facts[field.name] for field in dataclasses.fields(cls)})

    @property
    def in_words(self) -> str:
        """What was found and decided, in a sentence without its stop."""
        chosen = Way(self.space, self.metric)
        if not self.predicted:
            return f"Neighbours by {chosen.in_words}: there was nothing to try"
        told = [f"{value:.1%} by {_way(name).in_words}" for name, value in self.predicted.items()]
        return (
            f"Neighbours by {chosen.in_words}: found in half of the features of {self.n_rows:,} rows, they predict of "
            f"the variance of the other half {', '.join(told)}"
        )


def ways(spaces: Sequence[Space], metric: Metric) -> list[Way]:
    """Return the ways that a config leaves open, the simplest first.

    Args:
        spaces: in which neighbours may be searched.
        metric: of the config, perhaps ``auto``.
    """
    metrics: tuple[Metric, ...] = ("l2", "centered_cosine") if metric == "auto" else (metric,)
    return [Way(space, one) for space in spaces for one in metrics]


def tried(vectors: Vectors, spaces: Sequence[Space], config: GraphConfig, n_components: int) -> Trial:
    """Return which of the ways that are open finds neighbours that tell most of a row.

    Args:
        vectors: (N, D) as they are packed; sampled rows are read, within ``task_memory``.
        spaces: in which neighbours may be searched, the simplest first.
        config: the section ``graph``.
        n_components: E.
    """
    open_ways = ways(spaces, config.metric)
    first = open_ways[0]
    sample = _sample(vectors, config) if len(open_ways) > 1 and vectors.dim >= LEAST_DIM else None
    if sample is None or len(sample) < LEAST_ROWS or sample.shape[1] < LEAST_DIM:
        return Trial(first.space, first.metric, 0, {})
    predicted = _predicted(sample, open_ways, config, n_components)
    best = max(predicted.values())
    # the simplest that no other predicts clearly more than
    chosen = next(way for way in open_ways if best <= CLEARLY * max(predicted[way.name], 0.0))
    trial = Trial(chosen.space, chosen.metric, len(sample), predicted)
    if chosen != first:
        logger.info("%s.", trial.in_words)
    return trial


def trial_rows(vectors: Vectors, config: GraphConfig, most: int = TRIAL_ROWS) -> int:
    """Return how many rows a trial takes at most: within ``task_memory`` where they are dense, but some for each of K.

    Args:
        vectors: (N, D) that they are drawn from.
        config: the section ``graph``.
        most: where memory does not say less.
    """
    if sparse_rows(vectors, np.arange(0)) is not None:
        return most
    held = config.task_memory // (16 * vectors.dim)  # float32, twice: also as the metric sees them, and as much to work
    return max(min(most, held), LEAST_ROWS, 4 * config.n_neighbors)


def _way(name: str) -> Way:
    space, _, metric = name.partition(", ")
    return Way(space, metric)  # type: ignore[arg-type]


def _sample(vectors: Vectors, config: GraphConfig) -> NDArray[np.float32] | None:
    """Return sampled rows (n, D) that differ, in the features that do.

    Copies of a row would predict it whatever the way. Of very wide rows, features are drawn.
    """
    if vectors.n_rows < LEAST_ROWS:
        return None
    seed = config.seed + SEED_STEP
    found = subset(vectors, sampled(vectors.n_rows, trial_rows(vectors, config), seed))
    if isinstance(found, SparseVectors):
        matrix = found.matrix(_first_of_equals(sparse_row_hashes(found.matrix()))).tocsc()
        filled = np.flatnonzero(np.diff(matrix.indptr))
        if len(filled) > MOST_FEATURES:
            filled = np.sort(np.random.default_rng(seed).choice(filled, MOST_FEATURES, replace=False))
        sample: NDArray[np.float32] = matrix[:, filled].toarray().astype(np.float32)
    else:
        sample = found.gather(_first_of_equals(row_hashes(found.block(0, found.n_rows))))
    differ: NDArray[np.float32] = sample[:, np.ptp(sample, axis=0) > 0]
    return differ


def _first_of_equals(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the places, ascending, where a hash stands for the first time."""
    return np.sort(np.unique(hashes, return_index=True)[1])


def _predicted(
    sample: NDArray[np.float32], open_ways: Sequence[Way], config: GraphConfig, n_components: int
) -> dict[str, float]:
    """Return R^2 of half of the features by neighbours in the other, by the name of each way; means of all halvings."""
    generator = np.random.default_rng(config.seed + SEED_STEP)
    are_unit = bool(np.all(np.abs(np.linalg.norm(sample, axis=1) - 1) < UNIT))
    found: dict[str, list[float]] = {way.name: [] for way in open_ways}
    for _ in range(HALVINGS):
        features = generator.permutation(sample.shape[1])[:MOST_FEATURES]
        half, other = (np.ascontiguousarray(sample[:, part]) for part in np.array_split(features, 2))
        if are_unit:
            half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        other -= other.mean(axis=0)
        points: dict[Space, NDArray[np.float32]] = {"rows": half}
        if any(way.space == "components" for way in open_ways):
            n_kept = min(n_components, *(size - 1 for size in half.shape))
            points["components"] = PCA(n_kept, svd_solver="randomized", random_state=config.seed).fit_transform(half)
        for way in open_ways:
            found[way.name].append(_r_squared(_neighbors(points[way.space], way.metric, config), other))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _neighbors(points: NDArray[np.float32], metric: Metric, config: GraphConfig) -> NDArray[np.int64]:
    """Return the neighbours (n, K) of all points; on the CPU everywhere, so that another machine decides alike."""
    k = min(max(config.n_neighbors, 2), len(points) - 1)  # of one, the neighbours' own spread is not known
    brief = config.model_copy(update={"metric": metric, "n_neighbors": k, "device": "cpu", "block_rows": None})
    return np.asarray(all_pairs(ArrayVectors(points), brief)[0], np.int64)


def _r_squared(neighbors: NDArray[np.int64], targets: NDArray[np.float32]) -> float:
    """Return the share of the targets' variance that neighbours predict; 0 where they are any, negative if misleading.

    It is what the mean of ever more neighbours of the same kind would predict: of the few that there are, the mean is
    off by their own spread too, which shrinks all numbers alike and hides what noisy rows have in common.

    Args:
        neighbors: (n, K), K at least 2.
        targets: (n, H), centred.
    """
    k = neighbors.shape[1]
    mean = np.zeros_like(targets)
    for column in neighbors.T:  # not all at once: (n, K, H) numbers
        mean += targets[column]
    mean /= k
    lengths = np.square(targets, dtype=np.float64).sum(axis=1)
    along = float((targets * mean).sum(dtype=np.float64))
    length_of_mean = (k * float(np.square(mean, dtype=np.float64).sum()) - lengths[neighbors].sum() / k) / (k - 1)
    return float((2 * along - length_of_mean) / lengths.sum())
