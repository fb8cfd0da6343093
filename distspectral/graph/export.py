"""The graph of a run as other libraries take it: SciPy's sparse matrix, AnnData's ``obsp``, FAISS's ids and distances.

Rows are numbered as in the run's output, whose row i is row i here.

Shape letters: N rows, K neighbours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from distspectral.errors import MissingDependencyError
from distspectral.graph.store import SQUARED_DISTANCES, MappedGraph, edge_blocks
from distspectral.storage.artifact.atomic import open_whole
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.filesystems import join, resolve
from distspectral.storage.rows.vectors import MappedVectors

Form = Literal["npz", "anndata", "faiss"]
FAISS_FILES = ("ids.npy", "squared_distances.npy")


def write_npz(graph: Artifact, path: str) -> None:
    """Write the affinities as ``scipy.sparse.load_npz`` reads them: :func:`affinity_matrix`."""
    with open_whole(*resolve(path)) as stream:
        scipy.sparse.save_npz(stream, affinity_matrix(graph))


def write_anndata(graph: Artifact, neighbors: Artifact, vectors: Artifact, path: str) -> None:
    """Write an ``.h5ad`` file without features: ``obsp["connectivities"]`` and ``obsp["distances"]``, ids as names.

    Args:
        graph: finished; its affinities are the connectivities.
        neighbors: finished; square roots of its squared distances are the distances, K of a row.
        vectors: finished; has the ids.
        path: of the file.

    Raises:
        MissingDependencyError: anndata is not installed.
    """
    try:
        import anndata
        import pandas
    except ImportError as error:
        raise MissingDependencyError("anndata is not installed: pip install '.[anndata]'") from error
    ids = MappedVectors(vectors).ids().to_pylist()
    # objects, for not every AnnData can write the strings that pandas 3 infers
    names, no_names = (pandas.Index(one, dtype=object) for one in ([str(name) for name in ids], []))
    table = anndata.AnnData(obs=pandas.DataFrame(index=names), var=pandas.DataFrame(index=no_names))
    table.obsp["connectivities"] = affinity_matrix(graph)
    table.obsp["distances"] = distance_matrix(neighbors)
    with tempfile.TemporaryDirectory() as folder, open_whole(*resolve(path)) as stream:
        made = Path(folder) / "graph.h5ad"
        table.write_h5ad(made)
        with made.open("rb") as file:
            while piece := file.read(1 << 24):
                stream.write(piece)


def write_faiss(neighbors: Artifact, folder: str) -> None:
    """Write what ``index.search`` returns, ``ids.npy`` (N, K) int64 and ``squared_distances.npy`` (N, K) float32.

    A missing neighbour has the id -1 and the distance infinity, as FAISS has it. Memory: one block.
    """
    lists = MappedGraph(neighbors, weights=SQUARED_DISTANCES)
    for name, dtype in zip(FAISS_FILES, ("<i8", "<f4"), strict=True):
        with open_whole(*resolve(join(folder, name))) as stream:
            _write_npy(stream, (lists.n_rows, lists.n_neighbors), dtype, _columns_of(lists, name))


def _columns_of(lists: MappedGraph, name: str) -> Iterator[NDArray[Any]]:
    for start, ids, squared_distances in edge_blocks(lists):
        missing = ids == np.arange(start, start + len(ids))[:, None]
        if name == FAISS_FILES[0]:
            yield np.where(missing, -1, ids).astype("<i8")
        else:
            yield np.where(missing, np.inf, squared_distances).astype("<f4")


def _write_npy(stream: IO[bytes], shape: tuple[int, int], dtype: str, blocks: Iterator[NDArray[Any]]) -> None:
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    for block in blocks:
        stream.write(block.tobytes())


def affinity_matrix(graph: Artifact) -> scipy.sparse.csr_matrix:
    """Return (W + W') / 2, (N, N) float32 without a diagonal: what was trained on. Memory: about 24 N K bytes."""
    directed = _matrix(MappedGraph(graph))
    return scipy.sparse.csr_matrix((directed + directed.T) * np.float32(0.5))


def distance_matrix(neighbors: Artifact) -> scipy.sparse.csr_matrix:
    """Return the distances to the K neighbours, (N, N) float32; distances 0 are stored, too."""
    squared = _matrix(MappedGraph(neighbors, weights=SQUARED_DISTANCES))
    return scipy.sparse.csr_matrix((np.sqrt(squared.data), squared.indices, squared.indptr), squared.shape)


def _matrix(graph: MappedGraph) -> scipy.sparse.csr_matrix:
    """Return the (N, N) matrix of the lists as they are; a missing neighbour, the row itself, has no entry."""
    columns, weights, counts = [], [], [np.zeros(1, np.int64)]
    for start, neighbors, values in edge_blocks(graph):
        there = neighbors != np.arange(start, start + len(neighbors))[:, None]
        columns.append(neighbors[there])
        weights.append(values[there])
        counts.append(there.sum(1))
    shape = graph.n_rows, graph.n_rows
    row_starts = np.concatenate(counts).cumsum()
    return scipy.sparse.csr_matrix((np.concatenate(weights), np.concatenate(columns), row_starts), shape)
