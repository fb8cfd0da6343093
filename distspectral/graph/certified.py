"""Learned functions and the Laplacian of a graph in memory: how wrong they are, and nearly exact ones made of them.

Shape letters: N rows, E functions trained, P kept, M components of the graph.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from scipy.sparse import csgraph

from distspectral.graph.spectrum import component_vectors, symmetric_affinity
from distspectral.graph.store import Graph
from distspectral.spectral.certificate import Certificate, of_polish
from distspectral.spectral.polish import Polished, polished
from distspectral.spectral.rayleigh import Laplacian, aligned, gram
from distspectral.spectral.subspace import UNFILTERED, Filters, Product


@dataclasses.dataclass(frozen=True)
class SymmetricLaplacian:
    """The Laplacian in symmetric form: f is one of its eigenfunctions if sqrt(mass) f is one of the operator's.

    Rows are in an order that brings neighbours together (reverse Cuthill-McKee), for a product reads every row's
    neighbours: on 1,000,000 rows it then takes a third to a half of the time.

    Attributes:
        order: (N,) the graph's row at each place.
        product: with the operator. Values of the unnormalised Laplacian are divided by the mean degree.
        mass: (N,) of the rows: their degrees, or the mean of these.
        kernel: (N, M) SciPy sparse, orthonormal eigenvectors of the value 0, all of them, the heaviest first.
        most: no eigenvalue is larger.
        n_entries: of the operator.
    """

    order: NDArray[np.int32]
    product: Product
    mass: NDArray[np.float64]
    kernel: scipy.sparse.csc_matrix
    most: float
    n_entries: int

    @classmethod
    def of(cls, graph: Graph, laplacian: Laplacian) -> Self:
        """Return that of a whole graph of N rows."""
        affinity = symmetric_affinity(graph)
        order = csgraph.reverse_cuthill_mckee(affinity, symmetric_mode=True)
        affinity = affinity[order][:, order]
        degree = np.asarray(affinity.sum(axis=1)).reshape(-1)
        mass = degree if laplacian == "random_walk" else np.full(len(degree), degree.mean())
        root = np.sqrt(mass)
        inverse = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
        kernel = component_vectors(affinity, root)
        scaled = scipy.sparse.diags(inverse) @ affinity @ scipy.sparse.diags(inverse)
        operator = (scipy.sparse.diags(degree * inverse**2) - scaled).tocsr()
        most = 2 * float((degree * inverse**2).max())  # Gershgorin
        return cls(order, sparse_product(operator), mass, kernel, most, operator.nnz)

    def symmetric(self, functions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return sqrt(mass) f, (N, E) float64, of functions (N, E) at the graph's rows."""
        return np.asarray(np.sqrt(self.mass)[:, None] * functions[self.order])

    def functions(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return f at the graph's rows, (N, E), of eigenvectors (N, E); the mean of mass f^2 is that of the mass."""
        root = np.sqrt(self.mass / self.mass.mean() / len(self.mass))[:, None]
        found = np.empty_like(vectors)
        found[self.order] = np.divide(vectors, root, out=np.zeros_like(vectors), where=root > 0)
        return found

    def row_mass(self) -> NDArray[np.float64]:
        """Return the mass of the graph's rows, (N,), of mean 1."""
        found = np.empty_like(self.mass)
        found[self.order] = self.mass / self.mass.mean()
        return found


def certified(
    functions: NDArray[np.floating[Any]],
    graph: Graph,
    n_kept: int,
    laplacian: Laplacian,
    guesses: NDArray[np.floating[Any]] | None = None,
    filters: Filters = UNFILTERED,
    rotation: NDArray[np.float64] | None = None,
) -> Certificate:
    """Return the certificate of P functions of trained ones.

    Args:
        functions: (N, E) at all rows, in any basis.
        graph: N rows.
        n_kept: P.
        laplacian: whose eigenfunctions they are.
        guesses: (N, any) of the eigenfunctions, better ones; they save passes over the graph. None: the trained ones.
        filters: that the guesses come from.
        rotation: (E, P) of the trained functions to those judged, orthonormal under the rows' mass; None: to the
            lowest Ritz functions.
    """
    own = SymmetricLaplacian.of(graph, laplacian)
    better = None if guesses is None else own.symmetric(guesses)
    frame = None if rotation is None else rotation / np.sqrt(own.mass.sum())
    learned = own.symmetric(functions)
    return of_polish(own.product, learned, own.kernel, n_kept, own.most, own.n_entries, better, filters, frame)


def aligned_functions(
    functions: NDArray[np.float32],
    mass: NDArray[np.floating[Any]],
    exact: NDArray[np.float32],
    filters: Filters,
    graph: Graph,
    n_kept: int,
    laplacian: Laplacian,
) -> tuple[NDArray[np.float64], Certificate]:
    """Return the rotation of taught functions to those nearest to polished ones, and the certificate of these.

    Args:
        functions: (N, E) of the network, the constant one first.
        mass: (N,) of the rows, of mean 1.
        exact: (N, any number from E - 1 on) polished functions without the constant one; the first E - 1 were taught.
        filters: that the polished ones went through.
        graph: of the N rows.
        n_kept: functions wanted that the rows carry.
        laplacian: whose eigenfunctions they are.

    Returns:
        rotation: (E, P) float64, P at most ``n_kept`` and fewer where the outputs span fewer dimensions.
        certificate: of the P functions.
    """
    learned, n_taught = torch.tensor(functions, dtype=torch.float64), functions.shape[1] - 1
    share = torch.tensor(mass, dtype=torch.float64) / len(mass)
    taught = torch.tensor(exact[:, :n_taught], dtype=torch.float64)
    known = torch.column_stack([torch.ones_like(share), taught])[:, :n_kept]
    rotation = aligned(gram(learned, share), learned.T @ (known * share[:, None])).numpy()
    del learned, taught, known  # the certificate needs the memory
    return rotation, certified(functions, graph, rotation.shape[1], laplacian, exact, filters, rotation)


def polished_functions(
    functions: NDArray[np.floating[Any]], graph: Graph, n_kept: int, laplacian: Laplacian
) -> tuple[NDArray[np.float32], NDArray[np.float64], Polished]:
    """Return nearly exact eigenfunctions.

    Args:
        functions: (N, E) trained, at all rows, in any basis.
        graph: N rows.
        n_kept: P, of which it is decided when they are exact enough.
        laplacian: whose eigenfunctions they are.

    Returns:
        functions: (N, E - 1) all but the constant one, by rising eigenvalue; their squares, weighed by mass, have the
            mean 1. Zeros where the rows carry no more.
        mass: (N,) of mean 1.
        polished: how they were found, and the eigenvalues.
    """
    own = SymmetricLaplacian.of(graph, laplacian)
    learned, constant = own.symmetric(functions), np.sqrt(own.mass / own.mass.sum())
    found = polished(own.product, learned, own.kernel, constant, n_kept, own.most, own.n_entries)
    return own.functions(found.vectors[:, 1:]).astype(np.float32), own.row_mass(), found


def sparse_product(matrix: scipy.sparse.csr_matrix) -> Product:
    """Return the product with a matrix; torch's takes about half the time of SciPy's on one core, and uses several."""
    starts, columns, entries = map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        held = {
            dtype: torch.sparse_csr_tensor(starts, columns, entries.to(dtype), matrix.shape, check_invariants=False)
            for dtype in (torch.float32, torch.float64)
        }

    def product(block: NDArray[Any]) -> NDArray[Any]:
        columns = torch.from_numpy(block)
        image: NDArray[Any] = (held[columns.dtype] @ columns).numpy()
        return image

    return product
