"""The tree of an estimator's clusters: what a run's stages `cluster`, `tree` and `embed` do, on rows in memory.

Shape letters: N rows, P components, C clusters, M leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from distspectral.clustering.leaves import leaf_affinities, placed, quality, symmetric, together, with_leaves
from distspectral.clustering.stability import stability
from distspectral.embedding.forward import rows_of_block
from distspectral.embedding.outliers import fitted_outliers
from distspectral.embedding.transfer import gathered
from distspectral.estimators.representation import Representation
from distspectral.models.assigner import Assigner
from distspectral.models.outliers import Outliers
from distspectral.recipes import SpectralRecipe
from distspectral.spectral.tree import Tree, grown
from distspectral.storage.rows.drawing import drawn_rows


class GrownTree(NamedTuple):
    """Leaves inside the clusters, how they merge, and the rows that belong nowhere.

    Attributes:
        tree: of M leaves.
        assigner: of the clusters, with the leaves.
        outliers: fitted with it.
        leaves: (N,) int32.
        are_outliers: (N,).
        table: facts of the clusters by name, (C,) each.
    """

    tree: Tree
    assigner: Assigner
    outliers: Outliers
    leaves: NDArray[np.int32]
    are_outliers: NDArray[np.bool_]
    table: dict[str, NDArray[np.generic]]


def grow_tree(
    embedding: NDArray[np.float32], assigner: Assigner, represented: Representation, recipe: SpectralRecipe
) -> GrownTree:
    """Part clusters into leaves and merge these; find rows that belong nowhere.

    Args:
        embedding: (N, P) eigenfunctions.
        assigner: of the clusters.
        represented: the rows as the network sees them, and their graph.
        recipe: of the fit.
    """
    seen, graph, n_rows = represented.seen, represented.graph, len(embedding)
    rows = drawn_rows(n_rows, recipe.cluster.sample_rows, np.random.default_rng(recipe.seed))
    sample = torch.from_numpy(embedding[rows])
    assigner = with_leaves(assigner, sample, n_rows, recipe.cluster.n_leaves, recipe.seed)
    outliers, n_leaves = fitted_outliers(assigner, sample, seen, rows), len(assigner.leaves)
    step, parts = rows_of_block(seen.dim), []
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        block = gathered(seen, np.arange(start, stop))
        parts.append(placed(assigner, outliers, torch.from_numpy(embedding[start:stop]), block))
    found = together(parts)
    affinities = symmetric(leaf_affinities(graph, found.leaves, n_leaves, 0, n_rows))
    tree = grown(affinities, np.bincount(found.leaves, minlength=n_leaves), assigner.owners.numpy())
    known = stability(tree, assigner, embedding.__getitem__, graph, rows, recipe.seed)
    facts = quality(tree, affinities, known, found.silhouettes, found.outliers)
    facts["stability"] = known[tree.nodes(tree.n_clusters)].tolist()  # nan, not None, where it is not known
    table = {name: np.array(column) for name, column in facts.items()}
    return GrownTree(tree, assigner, outliers, found.leaves, found.are_outliers, table)
