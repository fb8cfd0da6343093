"""Dense references: what `eigh` says of a small graph, and batches that hold every edge of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from distspectral.graph.store import ArrayGraph, Graph
from distspectral.objectives.batches import EdgeBatch

Laplacian = Literal["random_walk", "unnormalized"]


class Spectrum(NamedTuple):
    """All eigenvalues (N,) ascending, eigenvectors (N, N) orthonormal under ``mass``, and mass (N,) summing to 1."""

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    mass: NDArray[np.float64]


def dense_affinity(graph: Graph) -> NDArray[np.float64]:
    """Return W (N, N), directed, as the graph's rows list it."""
    neighbors, affinities = graph.block(0, graph.n_rows)
    dense = np.zeros((graph.n_rows, graph.n_rows))
    np.add.at(dense, (np.arange(graph.n_rows)[:, None], neighbors), affinities.astype(np.float64))
    return dense


def dense_laplacian(graph: Graph) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return D - A and the degrees, A = (W + W')/2."""
    affinity = dense_affinity(graph)
    affinity = (affinity + affinity.T) / 2
    degree = affinity.sum(1)
    return np.diag(degree) - affinity, degree


def dense_spectrum(graph: Graph, laplacian: Laplacian = "random_walk") -> Spectrum:
    """Return the spectrum of I - D^-1 A, or of D - A."""
    matrix, degree = dense_laplacian(graph)
    weights = degree if laplacian == "random_walk" else np.ones(len(degree))
    values, vectors = scipy.linalg.eigh(matrix, np.diag(weights))
    return Spectrum(values, vectors * np.sqrt(weights.sum()), weights / weights.sum())


def random_graph(n_rows: int, n_neighbors: int, seed: int = 0, *, missing: float = 0.0) -> ArrayGraph:
    """Return a directed graph with random weights; a share of the slots is missing (own id, affinity 0)."""
    rng = np.random.default_rng(seed)
    others = np.argsort(rng.random((n_rows, n_rows - 1)), axis=1)[:, :n_neighbors]
    neighbors = others + (others >= np.arange(n_rows)[:, None])  # never the row itself
    affinities = rng.uniform(0.05, 1.0, neighbors.shape).astype(np.float32)
    gone = rng.random(neighbors.shape) < missing
    gone[:, 0] = False  # every row keeps an edge
    neighbors = np.where(gone, np.arange(n_rows)[:, None], neighbors)
    return ArrayGraph(neighbors, np.where(gone, np.float32(0), affinities))


def all_edges(vectors: Tensor, graph: Graph, laplacian: Laplacian = "random_walk") -> EdgeBatch:
    """Return a batch of every edge of the graph with its exact weight; what sampled batches are unbiased for."""
    neighbors, affinities = (torch.from_numpy(part) for part in graph.block(0, graph.n_rows))
    heads = torch.arange(graph.n_rows).repeat_interleave(graph.n_neighbors)
    tails, weights = neighbors.reshape(-1), affinities.double().reshape(-1)
    weights = weights / weights.sum()
    mass = torch.zeros(graph.n_rows, dtype=torch.float64)
    if laplacian == "random_walk":
        mass.index_add_(0, heads, weights / 2).index_add_(0, tails, weights / 2)
    else:
        mass += 1 / graph.n_rows
    return EdgeBatch(vectors, heads, tails, weights, mass)
