"""Exact eigenvectors of a graph that fits into memory: the reference for what networks learn.

Shape letters: N rows, P eigenvectors.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from distspectral.graph.store import Graph

TOLERANCE = 1e-6
"""Of the eigenvalues, absolute; far below the differences that are measured."""


def symmetric_affinity(graph: Graph) -> scipy.sparse.csr_matrix:
    """Return (W + W')/2 of the whole graph, (N, N) float64 with at most 2 N K entries."""
    n_rows, n_neighbors = graph.n_rows, graph.n_neighbors
    neighbors, affinities = graph.block(0, n_rows)
    indptr = np.arange(0, n_rows * n_neighbors + 1, n_neighbors)
    shape = (n_rows, n_rows)
    directed = scipy.sparse.csr_matrix(
        (affinities.reshape(-1).astype(np.float64), neighbors.reshape(-1), indptr), shape
    )
    return (directed + directed.T) / 2


def exact_spectrum(
    graph: Graph, n_functions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest eigenvalues (P,), eigenvectors (N, P) and degrees (N,) of the random-walk Laplacian.

    Eigenvectors are orthonormal under degree / sum of degrees, as the calibrated network's outputs are. Found by
    ARPACK on D^-1/2 (W + W')/2 D^-1/2, whose largest eigenvalues are one minus the Laplacian's smallest.
    """
    affinity = symmetric_affinity(graph)
    degree = np.asarray(affinity.sum(axis=1)).reshape(-1)
    root = scipy.sparse.diags(1 / np.sqrt(degree))
    start = np.random.default_rng(0).normal(size=graph.n_rows)  # ARPACK's own start is not seeded
    largest, vectors = scipy.sparse.linalg.eigsh(
        root @ affinity @ root, k=n_functions, which="LA", tol=TOLERANCE, v0=start
    )
    order = np.argsort(-largest)
    return 1 - largest[order], (root @ vectors[:, order]) * np.sqrt(degree.sum()), degree
