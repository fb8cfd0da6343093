"""Numbers that say how far to trust a result: subspace angles, label agreement, eigengaps, cuts.

Shape letters: N points, E functions, C clusters, L classes, M edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sin2_principal_angles(a: Tensor, b: Tensor, mass: Tensor | None = None) -> Tensor:
    """Return sin^2 of the principal angles between two column spaces, ascending.

    Args:
        a: (N, P) basis of the first space, full column rank.
        b: (N, E) basis of the second, full column rank, P <= E or P >= E.
        mass: (N,) positive weights of the inner product (degrees for the random-walk Laplacian);
            None for the plain one.

    Returns:
        (min(P, E),) float64 in [0, 1]; 0 means that the smaller space lies in the larger.
    """
    root = 1.0 if mass is None else mass.double().sqrt()[:, None]
    qa, _ = torch.linalg.qr(a.double() * root)
    qb, _ = torch.linalg.qr(b.double() * root)
    cosines: Tensor = torch.linalg.svdvals(qa.T @ qb)
    return (1 - cosines.clamp(max=1).square()).clamp(min=0)


ZERO = 1e-9
"""Eigenvalues below it are those of components: their differences are rounding."""


def suggested_n_clusters(
    eigenvalues: NDArray[np.float64], maximum: int | None = None, is_complete: bool = False
) -> int:
    """Return the number of clusters at the largest relative gap of a Laplacian spectrum.

    The gap after value c is (lambda_{c+1} - lambda_c) / lambda_{c+1}, looked for from c = 2 on: cutting
    after the constant function alone would say that there is no structure, which nobody asks for.

    Args:
        eigenvalues: (E,) ascending, the constant function's zero included.
        maximum: largest number to consider; default E - 1.
        is_complete: the rows carry no function beyond these, which counts as one of eigenvalue 1.
    """
    values = np.maximum(np.append(eigenvalues, [1.0] * is_complete), ZERO)
    last = min(len(values) - 1, maximum or len(values) - 1)
    if last < 2:
        return max(last, 1)
    if values[last] == ZERO:  # as many components and more
        return last
    upper, lower = values[2 : last + 1], values[1:last]
    gaps = (upper - lower) / upper
    return int(np.argmax(gaps)) + 2


def normalized_cut(
    heads: NDArray[np.int64], tails: NDArray[np.int64], weights: NDArray[np.floating[Any]], n_clusters: int
) -> float:
    """Return the sum over clusters of the share of a cluster's edge ends whose edge leads out of it, by weight.

    It is 0 for clusters that no edge joins. Spectral clustering minimises a relaxation of it. A cluster without edges
    counts 1.

    Args:
        heads: (M,) cluster of each edge's first end.
        tails: (M,) cluster of its second end.
        weights: (M,) of the edges.
        n_clusters: C.

    Reference: Shi and Malik, Normalized Cuts and Image Segmentation, PAMI 2000.
    """
    across = weights * (heads != tails)
    ends, cut = (
        np.bincount(heads, weight, n_clusters) + np.bincount(tails, weight, n_clusters) for weight in (weights, across)
    )
    return float(np.where(ends > 0, cut / np.where(ends > 0, ends, 1), 1.0).sum())


def cut_share(heads: NDArray[np.int64], tails: NDArray[np.int64], weights: NDArray[np.floating[Any]]) -> float:
    """Return the share of the edges that lead out of their cluster, by weight; see :func:`normalized_cut`."""
    return float(weights[heads != tails].sum(dtype=np.float64) / weights.sum(dtype=np.float64))


def modularity(
    heads: NDArray[np.int64], tails: NDArray[np.int64], weights: NDArray[np.floating[Any]], n_clusters: int
) -> float:
    """Return the share of the edges inside clusters beyond what chance gives clusters with as many edge ends.

    Takes what :func:`normalized_cut` does.

    Reference: Newman and Girvan, Finding and evaluating community structure in networks, 2004.
    """
    ends = np.bincount(heads, weights, n_clusters) + np.bincount(tails, weights, n_clusters)
    return 1 - cut_share(heads, tails, weights) - float(np.square(ends / ends.sum()).sum())


def normalized_mutual_information(contingency: Any) -> float:
    """Return the NMI (arithmetic mean of the entropies) of two partitions.

    Args:
        contingency: (L, C) counts of rows by class and cluster, NumPy or SciPy sparse, at least one row.
    """
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    classes, clusters = (np.asarray(contingency.sum(axis)).reshape(-1) for axis in (1, 0))
    mean_entropy = (entropy(classes) + entropy(clusters)) / 2
    information = mutual_info_score(None, None, contingency=contingency)
    return float(information / mean_entropy) if mean_entropy > 0 else 1.0


def label_agreement(contingency: NDArray[np.int64]) -> dict[str, float]:
    """Return ``acc`` (best one-to-one matching, Hungarian), ``nmi`` (arithmetic mean) and ``ari``.

    Args:
        contingency: (L, C) counts of rows by class and cluster, at least one row.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.asarray(contingency, dtype=np.float64)
    total, classes, clusters = counts.sum(), counts.sum(1), counts.sum(0)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    together, of_class, of_cluster = (np.sum(n * (n - 1) / 2) for n in (counts, classes, clusters))
    expected = of_class * of_cluster / max(total * (total - 1) / 2, 1.0)
    largest = (of_class + of_cluster) / 2
    return {
        "acc": float(counts[rows, columns].sum() / total),
        "nmi": normalized_mutual_information(counts),
        "ari": float((together - expected) / (largest - expected)) if largest != expected else 1.0,
    }
