"""Which distance the search takes where the config leaves it open: centred cosine where hubs rule the Euclidean graph.

A trial on sampled rows finds their neighbours by Euclidean distance. Orphans and the skewness of in-degrees tell
whether hubs decide who is near. Only then is centred cosine tried on the same rows, and taken if it leaves fewer
orphans. Elsewhere it costs accuracy, so it is no default. Sample and searches depend on row numbers and the seed alone:
whoever tries again decides alike.

Shape letters: N rows, D features, n sampled rows, K neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from distspectral.graph.config import GraphConfig, Metric
from distspectral.graph.facts import hubs_rule, tally_of
from distspectral.graph.search.all_pairs import all_pairs
from distspectral.graph.search.duplicates import row_hashes, sparse_row_hashes
from distspectral.graph.search.sampling import sampled
from distspectral.graph.store import ArrayGraph
from distspectral.storage.rows.joined import sparse_rows, subset
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import Vectors

logger = logging.getLogger(__name__)

TRIAL_ROWS = 10_000
"""Rows of a trial at most."""
LEAST_ROWS, LEAST_DIM = 200, 3
"""Different rows, and features, below which there is no trial."""
SEED_STEP = 3
"""Other rows than those that cells are tuned by."""

NAMES: dict[Metric, str] = {
    "l2": "Euclidean",
    "cosine": "cosine",
    "centered_cosine": "centred cosine",
    "inner_product": "inner product",
}


def chosen_metric(vectors: Vectors, config: GraphConfig) -> tuple[GraphConfig, dict[str, Any]]:
    """Return the config with the metric that is searched by, and what decided it.

    Args:
        vectors: (N, D) to search, of which at most :data:`TRIAL_ROWS` are read, within ``task_memory``.
        config: the section ``graph``.

    Returns:
        config: its metric is not ``auto``.
        facts: ``metric``, and if there was a trial ``hubs``: ``n_rows`` of it, and ``orphans`` and ``skewness`` by each
            metric that was tried.
    """
    if config.metric != "auto":
        return config, {"metric": config.metric}
    hubs = _trial(vectors, config)
    chosen: Metric = "l2"
    if "centered_cosine" in hubs and hubs["centered_cosine"]["orphans"] < hubs["l2"]["orphans"]:
        chosen = "centered_cosine"
    facts = {"metric": chosen} | ({"hubs": hubs} if hubs else {})
    if chosen != "l2":
        logger.info("Distances: %s.", metric_in_words(facts))
    return config.model_copy(update={"metric": chosen}), facts


def metric_in_words(facts: Mapping[str, Any]) -> str:
    """Return the facts of :func:`chosen_metric` as a phrase: the metric, and why if a trial chose it."""
    name, hubs = NAMES[facts["metric"]], facts.get("hubs")
    if hubs is None:
        return name
    euclidean = (
        f"of {hubs['n_rows']:,} sampled rows {hubs['l2']['orphans']:.1%} are nobody's neighbour by Euclidean distance "
        f"(skewness {hubs['l2']['skewness']:.1f})"
    )
    if (centered := hubs.get("centered_cosine")) is None:
        return f"{name}, because hubs do not rule: {euclidean}"
    return f"{name}, because {euclidean}, {centered['orphans']:.1%} by centred cosine ({centered['skewness']:.1f})"


def trial_rows(vectors: Vectors, config: GraphConfig) -> int:
    """Return how many rows a trial takes at most: within ``task_memory`` where they are dense, but some for each of K.

    Args:
        vectors: (N, D) that they are drawn from.
        config: the section ``graph``.
    """
    if sparse_rows(vectors, np.arange(0)) is not None:
        return TRIAL_ROWS
    most = config.task_memory // (16 * vectors.dim)  # float32, twice: also as the metric sees them, and as much to work
    return max(min(TRIAL_ROWS, most), LEAST_ROWS, 4 * config.n_neighbors)


def _trial(vectors: Vectors, config: GraphConfig) -> dict[str, Any]:
    """Return how hubs are under each metric that was worth a try, nothing where there is nothing to try."""
    if vectors.dim < LEAST_DIM or vectors.n_rows < LEAST_ROWS:
        return {}
    sample = _different_rows(vectors, config)
    if sample.n_rows < LEAST_ROWS:
        return {}
    hubs: dict[str, Any] = {"n_rows": sample.n_rows}
    k = min(config.n_neighbors, sample.n_rows - 1)
    tried: tuple[Metric, ...] = ("l2", "centered_cosine")
    for metric in tried:
        # on the CPU wherever it runs, so that another machine goes on with the same metric
        brief = config.model_copy(update={"metric": metric, "n_neighbors": k, "device": "cpu", "block_rows": None})
        found = tally_of(ArrayGraph(*all_pairs(sample, brief))).hub_facts()
        hubs[metric] = {"orphans": found["orphans"], "skewness": found["in_degree_skewness"]}
        if not hubs_rule(found):
            break
    return hubs


def _different_rows(vectors: Vectors, config: GraphConfig) -> Vectors:
    """Return sampled rows (n, D), of equal ones the first: copies beyond the K-th are nobody's neighbours either."""
    sample = subset(vectors, sampled(vectors.n_rows, trial_rows(vectors, config), config.seed + SEED_STEP))
    if isinstance(sample, SparseVectors):
        hashes = sparse_row_hashes(sample.matrix())
    else:
        hashes = row_hashes(sample.block(0, sample.n_rows))
    return subset(sample, _first_of_equals(hashes))


def _first_of_equals(hashes: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the places, ascending, where a hash stands for the first time."""
    return np.sort(np.unique(hashes, return_index=True)[1])
