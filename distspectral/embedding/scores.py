"""How well clusters agree with labels the pipeline never saw, from the tallies that embedding left behind.

Shape letters: L classes, C clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.spectral.diagnostics import label_agreement
from distspectral.storage.artifact.manifest import Shard


def tally(shards: list[Shard], n_clusters: int) -> tuple[NDArray[np.int64], NDArray[np.str_]] | None:
    """Return the rows by class and cluster (L, C), and the classes (L,); None where the source had no labels.

    Args:
        shards: of the stage ``embed``; their details hold the rows met of each (label, cluster).
        n_clusters: clusters there are.
    """
    tallies = [met for shard in shards for met in shard.details["label_counts"]]
    if not tallies:
        return None
    labels, clusters, counts = zip(*tallies, strict=True)
    classes, rows = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    contingency = np.zeros((len(classes), n_clusters), dtype=np.int64)
    np.add.at(contingency, (rows, list(clusters)), list(counts))
    return contingency, classes


def frequent_labels(shards: list[Shard], n_clusters: int) -> dict[str, list[Any]]:
    """Return by cluster (C,) the most frequent ``label`` and its ``label_share``, from 0 to 1; nothing without labels.

    Args:
        shards: see :func:`tally`.
        n_clusters: likewise.
    """
    if (found := tally(shards, n_clusters)) is None:
        return {}
    counts, classes = found
    shares = counts.max(0) / np.maximum(counts.sum(0), 1)
    return {"label": classes[counts.argmax(0)].tolist(), "label_share": shares.tolist()}


def evaluate(shards: list[Shard], n_clusters: int) -> dict[str, float] | None:
    """Return ``acc``, ``nmi`` and ``ari`` of embedded shards, None where their source had no labels.

    Args:
        shards: see :func:`tally`.
        n_clusters: likewise.
    """
    found = tally(shards, n_clusters)
    return None if found is None else label_agreement(found[0])
