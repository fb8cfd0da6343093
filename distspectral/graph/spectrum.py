"""Exact eigenvectors of a graph that fits into memory: the reference for what networks learn.

A Krylov method sees an eigenvalue that occurs several times as one: rounding decides which copies it finds. A graph of
several components has as many zeros, so these are read off the components; copies of other values are looked for until
no more come.
Shape letters: N rows, M components, P eigenvectors.
"""

from __future__ import annotations

import contextlib

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray
from scipy.sparse import csgraph

from distspectral.graph.store import Graph

TOLERANCE = 1e-9
"""Of the eigenvalues, relative; far below the differences that are measured."""

MOST_RESTARTS = 1000
"""Of ARPACK with one basis, before a wider one is tried; most graphs need some ten."""

SAME = 1e-8
"""Eigenvalues that are closer than this are copies of one another."""


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

    Eigenvectors are orthonormal under degree / sum of degrees, as the calibrated network's outputs are. Of more
    components than functions the heaviest are taken. Rows without an edge have no mass, and the value 0.
    """
    affinity = symmetric_affinity(graph)
    degree = np.asarray(affinity.sum(axis=1)).reshape(-1)
    root = np.sqrt(degree)
    inverse = scipy.sparse.diags(np.divide(1, root, out=np.zeros_like(root), where=root > 0))
    kernel = component_vectors(affinity, root)[:, :n_functions].toarray()
    largest, vectors = _largest(inverse @ affinity @ inverse, kernel, n_functions)
    return 1 - largest, (inverse @ vectors) * np.sqrt(degree.sum()), degree


def component_vectors(affinity: scipy.sparse.csr_matrix, root: NDArray[np.float64]) -> scipy.sparse.csc_matrix:
    """Return the roots of the degrees on each component that has edges, columns of length 1 (N, M), heaviest first.

    They are all eigenvectors of D^-1/2 (W + W')/2 D^-1/2 for its largest eigenvalue, 1.
    """
    affinity.eliminate_zeros()
    _, component = csgraph.connected_components(affinity, directed=False)
    mass = np.bincount(component, root**2)
    heaviest = np.argsort(-mass, kind="stable")[: np.count_nonzero(mass)]
    lengths = np.sqrt(mass)[component]
    unit = np.divide(root, lengths, out=np.zeros_like(root), where=lengths > 0)
    return scipy.sparse.csc_matrix((unit, (np.arange(len(root)), component)))[:, heaviest]


def _largest(
    matrix: scipy.sparse.csr_matrix, kernel: NDArray[np.float64], n_functions: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues (P,), descending, and orthonormal eigenvectors (N, P) of a symmetric matrix.

    Args:
        matrix: (N, N), its eigenvalues between -1 and 1.
        kernel: (N, M) orthonormal eigenvectors of the eigenvalue 1, all of them or P.
        n_functions: P.
    """
    vectors, values = kernel, np.ones(kernel.shape[1])
    while kernel.shape[1] < n_functions and len(values) < len(kernel):
        missing = n_functions - len(values)
        more, their_vectors = _largest_beyond(matrix, vectors, max(missing, 1))
        if missing <= 0 and more[0] <= values[n_functions - 1] + SAME:
            break
        order = np.argsort(-np.append(values, more), kind="stable")
        values, vectors = np.append(values, more)[order], np.hstack([vectors, their_vectors])[:, order]
    return values[:n_functions], vectors[:, :n_functions]


def _largest_beyond(
    matrix: scipy.sparse.csr_matrix, known: NDArray[np.float64], n_wanted: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues, descending, and their eigenvectors but for ``known`` ones (N, any number).

    The known ones are moved below all others. ARPACK's basis is wider than its default of 2 P, which lost copies. It
    doubles where many eigenvalues are as good as equal, among which a small one never converges. A matrix no larger
    than the basis is decomposed whole.
    """
    n_rows, width = len(known), 4 * n_wanted + 20
    moved = scipy.sparse.linalg.LinearOperator(
        (n_rows, n_rows), lambda x: matrix @ x - 3 * (known @ (known.T @ x)), dtype=np.float64
    )
    start = np.random.default_rng(known.shape[1]).normal(size=n_rows)  # ARPACK's own is not seeded
    while width < n_rows:
        asked = {"which": "LA", "ncv": width, "maxiter": MOST_RESTARTS, "tol": TOLERANCE, "v0": start}
        with contextlib.suppress(scipy.sparse.linalg.ArpackNoConvergence):
            values, vectors = scipy.sparse.linalg.eigsh(moved, n_wanted, **asked)
            order = np.argsort(-values)
            return values[order], vectors[:, order]
        width *= 2
    values, vectors = scipy.linalg.eigh(matrix.toarray() - 3 * known @ known.T)
    return values[: -n_wanted - 1 : -1], vectors[:, : -n_wanted - 1 : -1]
