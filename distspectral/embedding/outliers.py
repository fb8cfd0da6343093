"""What is usual in each cluster, told from a sample of its rows, so that a row that belongs nowhere is known.

Shape letters: N rows, n sampled rows, S features that the network sees, P components, C clusters.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from distspectral.embedding.forward import rows_of_block
from distspectral.embedding.transfer import gathered
from distspectral.models.assigner import Assigner
from distspectral.models.outliers import FARTHEST, Outliers
from distspectral.spectral.fences import fences
from distspectral.storage.rows.joined import sparse_rows
from distspectral.storage.rows.vectors import Vectors

ROW_STEPS, LEAF_STEPS = 2.0, 3.5
"""Distances between the quartiles, by which a row lies beyond the upper one: from the mean, and from the leaf in
logarithms, for the latter spread over orders of magnitude.

Of 500 uniform rows in the box of digits, MNIST, USPS and a mixture, which the model never saw, .92 to 1.00 were found;
of 1 to 5% that it was trained on among a mixture all, with .96 precision and more, among digits .67. Of clean rows it
takes .1% (mixture) to 2.7% (70,000 images of MNIST). With the first distance alone .09 of the rows beside USPS were
found, with the second alone .3 to .6 of those trained on."""
LEAST_DISTANCE = 1e-9


def fitted_outliers(assigner: Assigner, embedding: Tensor, seen: Vectors, rows: NDArray[np.int64]) -> Outliers:
    """Return what tells outliers, fitted to sampled rows; they are read twice, a block at a time.

    Args:
        assigner: with leaves.
        embedding: (n, P) of the sampled rows.
        seen: all N rows, as the network sees them.
        rows: (n,) numbers of the sampled ones.
    """
    cluster, _ = assigner(embedding)
    near = assigner.leaf_distances(embedding, assigner.leaf(embedding, cluster)).numpy()
    labels, n_clusters, step = cluster.numpy(), len(assigner.centroids), rows_of_block(seen.dim)
    parts = [slice(start, start + step) for start in range(0, len(rows), step)]
    sums = np.zeros((n_clusters, seen.dim))
    for part in parts:
        ones, own = np.ones(len(labels[part]), np.float32), labels[part]
        members = sparse.csr_array((ones, (own, np.arange(len(own)))), (n_clusters, len(own)))
        thin = sparse_rows(seen, rows[part])
        sums += members @ (seen.gather(rows[part]) if thin is None else thin)
    counts = np.bincount(labels, minlength=n_clusters)
    found = Outliers.none(n_clusters, seen.dim)
    found.means = torch.from_numpy((sums / np.maximum(counts, 1)[:, None]).astype(np.float32))
    far = [found.distances(gathered(seen, rows[part]), cluster[part]).numpy() for part in parts]
    logs = np.log(np.maximum(near, LEAST_DISTANCE))
    reaches = fences(np.concatenate(far), labels, n_clusters, ROW_STEPS)
    leaf_reaches = np.exp(fences(logs, labels, n_clusters, LEAF_STEPS))
    found.reach, found.leaf_reach = (
        torch.from_numpy(reach).clamp(max=FARTHEST).float() for reach in (reaches, leaf_reaches)
    )
    return found
