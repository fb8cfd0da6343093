"""How well clusters agree with labels the pipeline never saw, from the tallies that embedding left behind."""

from __future__ import annotations

import numpy as np

from distspectral.spectral.diagnostics import label_agreement
from distspectral.storage.artifact.manifest import Shard


def evaluate(shards: list[Shard], n_clusters: int) -> dict[str, float] | None:
    """Return ``acc``, ``nmi`` and ``ari`` of embedded shards, None where their source had no labels.

    Args:
        shards: of the stage ``embed``; their details hold the rows met of each (label, cluster).
        n_clusters: clusters there are.
    """
    tallies = [tally for shard in shards for tally in shard.details["label_counts"]]
    if not tallies:
        return None
    classes, rows = np.unique(np.asarray([str(label) for label, _, _ in tallies]), return_inverse=True)
    contingency = np.zeros((len(classes), n_clusters), dtype=np.int64)
    np.add.at(contingency, (rows, [cluster for _, cluster, _ in tallies]), [count for _, _, count in tallies])
    return label_agreement(contingency)
