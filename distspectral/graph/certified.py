"""The certificate of functions on a graph in memory: the operator, its kernel, and what is known of it.

Shape letters: N rows, E functions trained, P kept.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray

from distspectral.graph.spectrum import component_vectors, symmetric_affinity
from distspectral.graph.store import Graph
from distspectral.spectral.certificate import Certificate, of_polish
from distspectral.spectral.polish import Product


def certified(
    functions: NDArray[np.floating[Any]], graph: Graph, n_kept: int, laplacian: Literal["random_walk", "unnormalized"]
) -> Certificate:
    """Return the certificate of the lowest P Ritz functions of trained ones.

    Args:
        functions: (N, E) at all rows, in any basis.
        graph: N rows.
        n_kept: P.
        laplacian: whose eigenfunctions they are; values of the unnormalised one are divided by the mean degree.
    """
    affinity = symmetric_affinity(graph)
    degree = np.asarray(affinity.sum(axis=1)).reshape(-1)
    mass = degree if laplacian == "random_walk" else np.full(len(degree), degree.mean())
    root = np.sqrt(mass)
    inverse = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
    kernel = component_vectors(affinity, root)
    scaled = scipy.sparse.diags(inverse) @ affinity @ scipy.sparse.diags(inverse)
    operator = (scipy.sparse.diags(degree * inverse**2) - scaled).tocsr()
    most = 2 * float((degree * inverse**2).max())  # Gershgorin
    block = root[:, None] * functions.astype(np.float64)
    return of_polish(sparse_product(operator), block, kernel, n_kept, most, operator.nnz)


def sparse_product(matrix: scipy.sparse.csr_matrix) -> Product:
    """Return the product with a matrix; torch's takes about half the time of SciPy's on one core, and uses several."""
    starts, columns, entries = map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        held = torch.sparse_csr_tensor(starts, columns, entries, matrix.shape, check_invariants=False)

    def product(block: NDArray[np.float64]) -> NDArray[np.float64]:
        image: NDArray[np.float64] = (held @ torch.from_numpy(block)).numpy()
        return image

    return product
