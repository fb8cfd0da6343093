"""Labels by level of the tree: whole numbers, the finest layer first, as DataMapPlot and Toponymy take them.

Shape letters: C clusters of a layer, M leaves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distspectral.errors import ConfigError
from distspectral.spectral.tree import Tree

BRANCHES = 4
"""Clusters of a layer for each of the next coarser one, about."""
OUTLIER = -1
"""Label of a row that belongs nowhere, in all layers."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One cut of the tree.

    Attributes:
        of_leaf: (M,) int32 label of each leaf, as :func:`distspectral.stages.recut.recut` numbers them.
        nodes: (C,) node of the tree that each label is.
    """

    of_leaf: NDArray[np.int32]
    nodes: NDArray[np.int64]


def layer_sizes(n_clusters: int, n_leaves: int) -> list[int]:
    """Return numbers of clusters from all leaves down to a few, about a fourth each time; the run's own is among them.

    Args:
        n_clusters: of the run.
        n_leaves: M, at least as many.
    """
    sizes = {n_leaves, n_clusters}
    finer, coarser = n_clusters * BRANCHES, n_clusters // BRANCHES
    while finer * 2 <= n_leaves:
        sizes.add(finer)
        finer *= BRANCHES
    while coarser > 1:
        sizes.add(coarser)
        coarser //= BRANCHES
    return sorted(sizes, reverse=True)


def layers_of(tree: Tree, sizes: Sequence[int]) -> list[Layer]:
    """Return the cuts of a tree, the finest first.

    Args:
        tree: of M leaves.
        sizes: clusters of each.

    Raises:
        TooManyClustersError: one has more clusters than the tree has leaves.
        ConfigError: one has none.
    """
    if not sizes or min(sizes) < 1:
        raise ConfigError(
            f"--layers: is {', '.join(map(str, sizes)) or 'empty'}, expected numbers of clusters from 1 on"
        )
    return [Layer(tree.labels(size).astype(np.int32), tree.nodes(size)) for size in sorted(dict.fromkeys(sizes))[::-1]]


def read_names(path: str) -> dict[int, str]:
    """Return the names by node of the tree, of a file that the report's page has saved.

    Raises:
        ConfigError: there is no such file, or it is of another kind.
    """
    try:
        return {
            int(one["node"]): str(one["name"])
            for one in json.loads(Path(path).expanduser().read_text("utf-8"))["names"]
            if one["node"] is not None
        }
    except OSError as error:
        raise ConfigError(f"--names: {path} cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--names: {path} holds no names of clusters; `Save names as JSON` on the report's page writes such a file"
        ) from error


def label_records(
    layers: Sequence[Layer], rows: NDArray[np.int64], sums: NDArray[np.float64], names: dict[int, str]
) -> list[dict[str, Any]]:
    """Return what a viewer writes where: a record for each label that has rows, with the keys Embedding Atlas reads.

    ``x`` and ``y``: of the leaf's middle that lies nearest to the middle of all rows; ``text``: the name, or a word and
    the label, for the atlas takes text of digits for numbers; ``level``: 0 for the coarsest layer, which shows first;
    ``priority``: rows. Besides these ``layer``, ``label`` and ``node``.

    Args:
        layers: the finest first.
        rows: (M,) of each leaf, outliers left out.
        sums: (M, 2) of their places.
        names: by node.
    """
    middles = sums / np.maximum(rows, 1)[:, None]
    records = []
    for number, layer in enumerate(layers):
        n_labels = len(layer.nodes)
        totals = np.bincount(layer.of_leaf, rows, n_labels)
        sides = [np.bincount(layer.of_leaf, sums[:, axis], n_labels) / np.maximum(totals, 1) for axis in (0, 1)]
        means = np.stack(sides, axis=1)
        apart = np.square(middles - means[layer.of_leaf]).sum(axis=1)
        order = np.lexsort((np.where(rows > 0, apart, np.inf), layer.of_leaf))
        nearest = order[np.unique(layer.of_leaf[order], return_index=True)[1]]
        for label in np.flatnonzero(totals > 0).tolist():
            x, y = middles[nearest[label]].tolist()
            node = int(layer.nodes[label])
            records.append(
                {
                    "x": x,
                    "y": y,
                    "text": names.get(node, f"cluster {label}"),
                    "level": len(layers) - 1 - number,
                    "priority": int(totals[label]),
                    "layer": number,
                    "label": label,
                    "node": node,
                }
            )
    return records
