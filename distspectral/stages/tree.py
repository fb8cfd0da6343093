"""A tree over the clusters: small leaves inside them, merged by all edges of the graph, so that any cut is a join.

Shape letters: N rows, P components, C clusters, M leaves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse

from distspectral.calibration.rotation import rows_per_task
from distspectral.clustering.config import MOST_MICRO_CLUSTERS, ClusterConfig
from distspectral.clustering.fine import ADDING_FINE, FINE_ROW_BYTES, OWNER, TYING, fine_tree, write_rows
from distspectral.clustering.fine import NODES as FINE_NODES
from distspectral.clustering.leaves import (
    BLOCK_EDGES,
    Placed,
    leaf_affinities,
    nothing_between,
    placed,
    quality,
    symmetric,
    together,
    with_leaves,
)
from distspectral.clustering.micro_clusters import number_of_leaves
from distspectral.clustering.stability import stability
from distspectral.costs.bill import Bill
from distspectral.embedding.few_rows import EMBEDDING, READING_EDGES, EmbeddedRows, GatheredGraph
from distspectral.embedding.forward import forward, rows_of_block
from distspectral.embedding.loading import Loader
from distspectral.embedding.outliers import fitted_outliers
from distspectral.embedding.transfer import as_tensor
from distspectral.graph.store import MappedGraph
from distspectral.mapping import Mapper, in_order, local_map
from distspectral.models.assigner import Assigner
from distspectral.models.networks import Perceptron, torch_device
from distspectral.models.state import write_state
from distspectral.spectral.exemplars import first_of_each
from distspectral.spectral.tree import Tree, grown
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.stages.encoding import forward_piece
from distspectral.stages.stage import Manifests, Piece, Stage, Work
from distspectral.stages.tree_files import (
    AFFINITIES,
    LEAVES,
    NODES,
    OUTLIERS,
    affinity_table,
    load_leaves,
    load_outliers,
    node_table,
    write_table,
)
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.by_row import ByRow, write_part
from distspectral.storage.rows.drawing import drawn_rows
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.packed import read_column

ROW_LEAVES = "row-leaves.npy"
"""Leaf of every row, which the tasks that add up edges map; removed at the end."""
FITTING_OUTLIERS, JOINING_LEAVES = "fitting outliers", "joining leaves"

LEAKING = 0.5
"""Conductance above which a cluster has more affinity to others than inside: no community, even in the weak sense.

Reference: Radicchi, Castellano, Cecconi, Loreto, Parisi, Defining and identifying communities in networks, 2004."""
DISSOLVED = 0.5
"""Stability up to which a cluster is dissolved in other data, by the reference of :func:`stability`."""
MANY_OUTLIERS = 0.05
"""Share of rows above which a report tells of outliers; of clean data up to .015 were taken for some."""


def tree(
    vectors: Sequence[Artifact],
    model: Artifact,
    clusters: Artifact,
    graph: Artifact,
    output: Output,
    config: ClusterConfig,
    seed: int,
    mapper: Mapper = local_map,
) -> Manifest:
    """Write the artifact ``tree``: leaves, how they merge, and the affinities between them.

    Of more leaves than the model may have, those beyond are fine ones, told by edges.

    Args:
        vectors: finished ``vectors`` artifacts that the network was trained on, side by side.
        model: finished ``model`` artifact.
        clusters: finished ``clusters`` artifact.
        graph: finished ``graph`` artifact that the model is calibrated on.
        output: where the artifact ``tree`` goes.
        config: how many leaves, and the rows that they are fitted to.
        seed: of the choice of these and of the leaves.
        mapper: hands out shards and row ranges.
    """
    output.begin()
    artifact, n_rows = output.artifact, vectors[0].manifest().n_rows
    loader = Loader(("perceptron", model.uri, model.manifest().fingerprint), functools.partial(_perceptron, model))
    generator = np.random.default_rng(seed)
    rows = drawn_rows(n_rows, config.sample_rows, generator)
    embed = EmbeddedRows(tuple(vectors), loader, mapper)
    sample = torch.from_numpy(embed(rows))
    assigner = with_leaves(load_assigner(clusters), sample, n_rows, config.n_leaves, seed)
    write_state(artifact, LEAVES, assigner.leaf_state())
    fit = functools.partial(_fit_outliers, tuple(vectors), assigner.state() | assigner.leaf_state(), sample.numpy())
    (state,) = mapper(fit, [rows], FITTING_OUTLIERS)
    write_state(artifact, OUTLIERS, state)

    by_row = ByRow(output)
    items = [
        (f"leaves-{index:05d}.arrow", shard.name, start)
        for index, (shard, start) in enumerate(vectors[0].manifest().shards_and_first_rows)
        if shard.n_rows
    ]
    placing = functools.partial(_place_shard, tuple(vectors), model, clusters, artifact, by_row.artifact)
    placed_shards = list(in_order(mapper, placing, items, "placing rows", on_gpu=True))
    counts, silhouettes, outliers = (
        np.sum([getattr(one, name) for one in placed_shards], axis=0) for name in ("counts", "silhouettes", "outliers")
    )
    by_row.join(ROW_LEAVES, [one.shard for one in placed_shards], mapper, JOINING_LEAVES)

    step = rows_per_task(n_rows)
    ranges = [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
    adding = functools.partial(_mapped_affinities, graph, by_row.artifact, len(silhouettes))
    between = symmetric(sum(mapper(adding, ranges, "adding up edges"), start=nothing_between(len(silhouettes))))
    grown_tree = grown(between, counts, assigner.owners.numpy())
    found_again = stability(grown_tree, assigner, embed, GatheredGraph(graph, mapper), rows, seed)
    exemplars = node_exemplars(grown_tree, pa.concat_tables([one.nearest for one in placed_shards]))
    write_table(artifact, NODES, node_table(grown_tree, found_again).append_column("exemplar", exemplars))
    write_table(artifact, AFFINITIES, affinity_table(between))
    files = [LEAVES, OUTLIERS, NODES, AFFINITIES]
    n_fine = 0
    if has_fine(config):
        assert isinstance(config.n_leaves, int), config
        finer, owners = fine_tree(grown_tree, graph, by_row.artifact, ROW_LEAVES, config.n_leaves, ranges, mapper)
        unknown = np.full(len(finer.rows), np.nan)
        unknown[-len(grown_tree.children) :] = found_again[grown_tree.n_leaves :]
        inside = pa.array([*owners.tolist(), *[None] * (len(owners) - 1)], pa.int32())
        write_table(artifact, FINE_NODES, node_table(finer, unknown).append_column(OWNER, inside))
        files += [FINE_NODES, *write_rows(vectors[0], artifact, by_row.artifact, mapper)]
        n_fine = len(owners)
    by_row.artifact.delete()
    properties = {
        "n_leaves": len(silhouettes),
        "n_fine": n_fine,
        "n_clusters": grown_tree.n_clusters,
        "outliers": float(outliers.sum()) / n_rows,
        "clusters": quality(grown_tree, between, found_again, silhouettes, outliers),
    }
    return output.commit([], properties, {}, files=tuple(files))


def has_fine(config: ClusterConfig) -> bool:
    """Whether more leaves are wished for than the model may have."""
    return isinstance(config.n_leaves, int) and config.n_leaves > MOST_MICRO_CLUSTERS


def _perceptron(model: Artifact) -> Perceptron:
    return load_calibrated_network(model).perceptron


def _fit_outliers(
    vectors: tuple[Artifact, ...], assigner: dict[str, Any], sample: NDArray[np.float32], rows: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the state of what tells outliers, fitted to sampled rows (n,) and their embedding (n, P); one task."""
    fitted = Assigner.from_state(assigner)
    return fitted_outliers(fitted, torch.from_numpy(sample), open_vectors(vectors), rows).state_dict()


class _PlacedShard(NamedTuple):
    """What a shard's rows come to.

    Attributes:
        shard: of the file with the leaf of each row.
        counts: (M,) rows of each leaf.
        silhouettes: (M,) summed.
        outliers: (M,) rows that are some.
        nearest: the nearest row to each leaf that has any, with its ``id``.
    """

    shard: Shard
    counts: NDArray[np.int64]
    silhouettes: NDArray[np.float64]
    outliers: NDArray[np.float64]
    nearest: pa.Table


def _place_shard(
    vectors: tuple[Artifact, ...],
    model: Artifact,
    clusters: Artifact,
    tree: Artifact,
    by_row: Artifact,
    item: tuple[str, str, int],
) -> _PlacedShard:
    """Write the leaf of each row of a shard, and return what these come to; one task."""
    part, name, start = item
    network = _perceptron(model).to(torch_device("auto"))
    assigner, outliers, rows = load_leaves(clusters, tree), load_outliers(tree), open_vectors(vectors, only=name)
    step = rows_of_block(rows.dim)
    found = [_nothing(len(assigner.leaves))]
    for first in range(0, rows.n_rows, step):
        block = rows.block(first, min(first + step, rows.n_rows))
        found.append(placed(assigner, outliers, torch.from_numpy(forward(network, block)), as_tensor(block)))
    whole = together(found)
    nearest = first_of_each(whole.leaves, whole.distances, np.arange(len(whole.leaves)), 1)
    ids = read_column(vectors[0], [name], "id").take(pa.array(nearest))
    columns = {"leaf": whole.leaves[nearest], "distance": whole.distances[nearest], "row": start + nearest, "id": ids}
    counts = np.bincount(whole.leaves, minlength=len(assigner.leaves))
    shard = write_part(by_row, part, whole.leaves)
    return _PlacedShard(shard, counts, whole.silhouettes, whole.outliers, pa.table(columns))


def node_exemplars(tree: Tree, nearest: pa.Table) -> pa.ChunkedArray:
    """Return the id of the row that stands for each node (2M - 1,), null of one without rows.

    For a leaf that is the row nearest to its centroid, the earlier of equals; for a merger, that of its child with more
    rows.

    Args:
        tree: of M leaves.
        nearest: ``leaf``, ``distance``, ``row`` and ``id``, of each leaf and shard.
    """
    leaf, distance, row = (nearest[name].to_numpy() for name in ("leaf", "distance", "row"))
    first = first_of_each(leaf, distance, row, 1)
    places = np.full(len(tree.rows), -1)
    places[leaf[first]] = first
    for merger, (left, right) in enumerate(tree.children, tree.n_leaves):
        places[merger] = places[left if tree.rows[left] >= tree.rows[right] else right]
    return nearest["id"].take(pa.array(places, mask=places < 0))


def _nothing(n_leaves: int) -> Placed:
    return Placed(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, bool), *np.zeros((2, n_leaves)))


def _mapped_affinities(graph: Artifact, by_row: Artifact, n_leaves: int, rows: tuple[int, int]) -> sparse.csr_array:
    """Return :func:`leaf_affinities` of a range of rows; one task."""
    return leaf_affinities(MappedGraph(graph), by_row.load_array(ROW_LEAVES), n_leaves, *rows)


# ---- the declaration -------------------------------------------------------------------------------------------


def _run(work: Work) -> Manifest:
    models = work.artifacts["calibrate"], work.artifacts["cluster"]
    return tree(
        work.seen, *models, work.graph, work.output, work.settings["cluster"], work.settings["seed"], work.mapper
    )


def _cost(bill: Bill) -> None:
    (seen, graph), cluster = bill.recipe.learns_from["train"], bill.settings["cluster"]
    assert graph is not None, "eigenfunctions are those of a graph"
    rows = min(bill.n_rows, rows_per_task(math.ceil(bill.n_rows)))
    edges_us = bill.us("adding up edges") + (bill.us(ADDING_FINE) if has_fine(cluster) else 0.0)
    # torch spreads distances over the cores of a GPU's node that belong to it
    bill.through(("train",), bill.us("placing rows"), edges_us, bill.n_rows / rows, threads=math.inf)
    sample_rows, n_functions = min(bill.n_rows, cluster.sample_rows), bill.settings["train"].n_functions
    sampled_us = sum(map(bill.us, (EMBEDDING, READING_EDGES, FITTING_OUTLIERS)))
    sample_s = (
        sampled_us * bill.rates.sample_rows / min(bill.rates.sample_rows, cluster.sample_rows) * sample_rows / 1e6
    )
    alone = {JOINING_LEAVES: bill.us(JOINING_LEAVES)}
    placing, adding = bill.maps
    placing.read, adding.read, adding.written = bill.kept_by(*seen), bill.kept_by(graph) + 12 * bill.n_rows, 0.0
    bill.read = placing.read + adding.read
    bill.written = bill.scratch = 8 * bill.n_rows
    n_clusters = n_functions if cluster.n_clusters == "auto" else cluster.n_clusters
    n_leaves = number_of_leaves(math.ceil(bill.n_rows), n_clusters, cluster.n_leaves)
    bill.driver_bytes += 4 * sample_rows * 3 * n_functions + 3 * 8 * n_leaves**2
    bill.worker_bytes += 4 * bill.n_rows + 32 * BLOCK_EDGES + 16 * n_leaves**2
    if has_fine(cluster):
        alone[TYING] = bill.us(TYING)
        bill.written += 4 * bill.n_rows
        bill.worker_bytes += FINE_ROW_BYTES * bill.n_rows
    bill.driver(alone, bill.alone_s + sample_s)


def _pieces(work: Work) -> dict[str, Piece]:
    return forward_piece(load_calibrated_network(work.artifacts["calibrate"]).perceptron, work.seen)


def _facts(manifests: Manifests) -> dict[str, Any]:
    return {name: manifests["tree"].properties[name] for name in ("n_leaves", "n_fine", "outliers", "clusters")}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    conductance = facts["clusters"]["conductance"]
    worst = int(np.argmax(conductance))
    return {
        "tree": f"{facts['n_leaves']:,} leaves" + (f", {facts['n_fine']:,} fine ones" if facts["n_fine"] else ""),
        "cluster that leaks most": f"{worst}: {conductance[worst]:.1%} of its affinity leads to others",
        **_least_stable(facts["clusters"]["stability"]),
        "rows that belong nowhere": f"{facts['outliers']:.2%}",
    }


def _least_stable(found: list[float | None]) -> dict[str, str]:
    known = {number: value for number, value in enumerate(found) if value is not None}
    if not known:
        return {}
    least = min(known, key=known.__getitem__)
    return {"least stable cluster": f"{least}: {known[least]:.2f}, where 1 means found again in any half of the rows"}


def _notes(metrics: dict[str, Any]) -> list[str]:
    facts, notes = metrics["tree"], []
    if leaking := [number for number, share in enumerate(facts["clusters"]["conductance"]) if share > LEAKING]:
        named = ", ".join(map(str, leaking[:10])) + (" ..." if len(leaking) > 10 else "")
        notes.append(
            f"Clusters with more affinity to others than inside: {named}. Ask for fewer (`distspectral recut`), or "
            "keep more functions (spectral.n_components)."
        )
    dissolved = [number for number, found in enumerate(facts["clusters"]["stability"]) if found and found < DISSOLVED]
    if dissolved:
        named = ", ".join(map(str, dissolved[:10])) + (" ..." if len(dissolved) > 10 else "")
        notes.append(
            f"Clusters that are not found again in half of the rows: {named}. Do not read much into them; ask for "
            "another cluster.n_clusters, or look at other cuts (`distspectral recut`)."
        )
    if facts["outliers"] > MANY_OUTLIERS:
        notes.append(
            f"{facts['outliers']:.1%} of the rows belong nowhere (the output's column is_outlier). Look at them, and "
            "leave out what is broken; or ask for more clusters (cluster.n_clusters)."
        )
    return notes


TREE = Stage(
    name="tree",
    folder="tree",
    purpose="Part the clusters into leaves, and merge these into a tree that can be cut anywhere.",
    done="grew the tree",
    inputs=lambda recipe: (*recipe.may_see, recipe.embedded_graph, "calibrate", "cluster"),
    sections=("cluster.sample_rows", "cluster.n_leaves", "seed"),
    workers="tasks",
    run=_run,
    cost=_cost,
    pieces=_pieces,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)
