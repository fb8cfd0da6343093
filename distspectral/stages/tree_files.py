"""The files of the artifact ``tree``: leaves, outliers, nodes, and the affinities between leaves.

Shape letters: C clusters, M leaves.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from distspectral.clustering.fine import NODES as FINE_NODES
from distspectral.clustering.fine import OWNER
from distspectral.models.assigner import Assigner
from distspectral.models.outliers import Outliers
from distspectral.models.state import restored
from distspectral.spectral.tree import Tree
from distspectral.stages.cluster import load_assigner
from distspectral.storage.artifact.directory import Artifact

LEAVES, OUTLIERS, NODES, AFFINITIES = "leaves.pt", "outliers.pt", "nodes.parquet", "affinities.parquet"


def load_leaves(clusters: Artifact, tree: Artifact) -> Assigner:
    """Return the assigner of ``clusters`` with the leaves of ``tree``, on the CPU."""
    state = load_assigner(clusters).state()
    return restored(tree, LEAVES, lambda leaves: Assigner.from_state(state | leaves))


def load_outliers(tree: Artifact) -> Outliers:
    """Return what tells outliers, on the CPU."""
    return restored(tree, OUTLIERS, Outliers.from_state)


def node_table(tree: Tree, stability: NDArray[np.float64]) -> pa.Table:
    """Return a tree, and the stability (2M - 1,) of its nodes, as a table, one row per node in their order."""
    none = [None] * tree.n_leaves
    left, right = ([*none, *column] for column in tree.children.T.tolist())
    parents = [parent if parent >= 0 else None for parent in tree.parents().tolist()]
    n_nodes = len(tree.rows)
    return pa.table(
        {
            "node": pa.array(range(n_nodes), pa.int64()),
            "left": pa.array(left, pa.int64()),
            "right": pa.array(right, pa.int64()),
            "parent": pa.array(parents, pa.int64()),
            "rows": pa.array(tree.rows, pa.int64()),
            "mass": pa.array(tree.mass, pa.float64()),
            "height": pa.array(tree.height, pa.float64()),
            "affinity": pa.array([*none, *tree.affinity.tolist()], pa.float64()),
            "conductance": pa.array(tree.conductance, pa.float64()),
            "stability": pa.array(stability, pa.float64(), from_pandas=True),
        }
    )


def affinity_table(affinities: sparse.csr_array) -> pa.Table:
    """Return symmetric affinities (M, M) as a table of the pairs of leaves that edges join, each once."""
    upper = sparse.triu(affinities, format="coo")
    leaf, other = upper.coords
    return pa.table(
        {
            "leaf": pa.array(leaf, pa.int32()),
            "other": pa.array(other, pa.int32()),
            "affinity": pa.array(upper.data, pa.float64()),
        }
    )


def write_table(artifact: Artifact, name: str, table: pa.Table) -> None:
    """Write a table as one Parquet file, whole or not at all."""
    artifact.write_file(name, functools.partial(pq.write_table, table))


def read_table(artifact: Artifact, name: str) -> pa.Table:
    """Return a Parquet file of an artifact."""
    return pq.read_table(io.BytesIO(artifact.read_bytes(name)))


def load_fine_tree(tree: Artifact) -> Tree | None:
    """Return the tree over the fine leaves of a finished ``tree`` artifact; None where it has none."""
    manifest = tree.manifest()
    if not manifest.properties["n_fine"]:
        return None
    nodes, coarse = read_table(tree, FINE_NODES), restored(tree, LEAVES, lambda leaves: leaves["owners"].numpy())
    return _read_tree(nodes, coarse[nodes[OWNER].drop_null().to_numpy()])


def load_tree(tree: Artifact) -> tuple[Tree, sparse.csr_array]:
    """Return the tree of a finished ``tree`` artifact and the affinities (M, M) between its leaves."""
    nodes, pairs = read_table(tree, NODES), read_table(tree, AFFINITIES)
    owners = restored(tree, LEAVES, lambda leaves: leaves["owners"].numpy())
    n_leaves = len(owners)
    leaf, other, weights = (pairs[name].to_numpy() for name in ("leaf", "other", "affinity"))
    upper = sparse.coo_array((weights, (leaf, other)), (n_leaves, n_leaves)).tocsr()
    between = (upper + sparse.triu(upper, 1).T).tocsr()
    return _read_tree(nodes, owners), between


def _read_tree(nodes: pa.Table, clusters: NDArray[np.int64]) -> Tree:
    n_leaves = len(clusters)
    columns = {name: nodes[name].to_numpy() for name in ("rows", "mass", "height", "conductance")}
    children = np.column_stack([nodes[name][n_leaves:].to_numpy().astype(np.int64) for name in ("left", "right")])
    return Tree(children=children, affinity=nodes["affinity"][n_leaves:].to_numpy(), clusters=clusters, **columns)
