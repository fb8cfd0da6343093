"""The stage ``tree``: leaves inside clusters, affinities of all edges, and what is read back."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.leaves import leaf_affinities, placed, quality, symmetric, with_leaves
from distspectral.graph.store import ArrayGraph, MappedGraph
from distspectral.mapping import local_map
from distspectral.models.assigner import Assigner
from distspectral.models.outliers import Outliers
from distspectral.spectral.tree import grown
from distspectral.stages.tree import ROW_LEAVES, TREE, tree
from distspectral.stages.tree_files import AFFINITIES, NODES, load_leaves, load_tree
from distspectral.storage.artifact.output import Output
from tests.runs import N_ROWS
from tests.stages.chain import pipeline_upto

N_LEAVES, NOBODY = 4, Outliers.none(2, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return pipeline_upto(tmp_path_factory.mktemp("run"), "embed")


def output_columns(run, *names):
    artifact = run.chain.artifact("embed")
    parts = [pq.read_table(artifact.file_path(shard.name)) for shard in artifact.manifest().shards]
    return [np.concatenate([part[name].to_numpy() for part in parts]) for name in names]


def test_every_row_has_a_leaf_inside_its_cluster(finished):
    found, _ = load_tree(finished.chain.artifact("tree"))
    cluster, leaf = output_columns(finished, "cluster", "leaf")
    np.testing.assert_array_equal(found.clusters[leaf], cluster)
    np.testing.assert_array_equal(np.bincount(leaf, minlength=found.n_leaves), found.rows[: found.n_leaves])
    assert found.n_leaves > 10
    np.testing.assert_array_equal(found.labels(3)[leaf], cluster)


def test_affinities_are_those_of_all_edges(finished):
    found, between = load_tree(finished.chain.artifact("tree"))
    (leaf,) = output_columns(finished, "leaf")
    graph = MappedGraph(finished.chain.artifact("graph"))
    neighbors, affinities = graph.block(0, graph.n_rows)
    expected = np.zeros((found.n_leaves, found.n_leaves))
    np.add.at(expected, (np.repeat(leaf, 8), leaf[neighbors.ravel()]), affinities.ravel())
    np.testing.assert_allclose(between.toarray(), expected + expected.T, rtol=1e-6)
    np.testing.assert_allclose(found.mass[-1], 2 * affinities.sum(dtype=np.float64), rtol=1e-6)


def test_what_is_read_is_what_was_grown(finished):
    artifact = finished.chain.artifact("tree")
    found, between = load_tree(artifact)
    again = grown(between, found.rows[: found.n_leaves], found.clusters)
    for name, value in vars(again).items():
        np.testing.assert_allclose(getattr(found, name), value, err_msg=name)
    assert not artifact.has(ROW_LEAVES)
    nodes = pq.read_table(artifact.file_path(NODES))
    assert nodes["left"].null_count == nodes["affinity"].null_count == found.n_leaves
    assert nodes["parent"].null_count == 1
    pairs = pq.read_table(artifact.file_path(AFFINITIES))
    assert (pairs["leaf"].to_numpy() <= pairs["other"].to_numpy()).all()


def test_a_node_has_the_row_nearest_to_its_leaf_as_exemplar(finished):
    artifact = finished.chain.artifact("tree")
    found, _ = load_tree(artifact)
    exemplars = pq.read_table(artifact.file_path(NODES))["exemplar"].to_numpy()
    assigner = load_leaves(finished.chain.artifact("cluster"), artifact)
    ids, leaf, embedding = output_columns(finished, "id", "leaf", "embedding")
    distances = assigner.leaf_distances(torch.from_numpy(np.stack(embedding)), torch.from_numpy(leaf).long()).numpy()
    for one in range(found.n_leaves):
        own = np.flatnonzero(leaf == one)
        assert exemplars[one] in ids[own]
        assert distances[ids == exemplars[one]] == pytest.approx(distances[own].min(), abs=1e-5)
    for merger, (left, right) in enumerate(found.children, found.n_leaves):
        assert exemplars[merger] == exemplars[max((left, right), key=lambda child: (found.rows[child], child == left))]


def test_shards_that_come_in_another_order_make_the_same_tree(finished, tmp_path):
    chain = finished.chain
    folder = chain.artifact("tree").child("../again")

    def backwards(function, items, description, *, on_gpu=False):
        return local_map(function, items[::-1], description, on_gpu=on_gpu)

    made = [chain.artifact(name) for name in ("calibrate", "cluster", "graph")]
    again = tree(
        [chain.artifact("pack")], *made, Output(folder, "tree", "again", {}, {}), ClusterConfig(), 0, backwards
    )
    assert again.properties == chain.artifact("tree").manifest().properties
    assert sum(again.properties["clusters"]["rows"]) == N_ROWS


def test_edges_add_up_block_by_block(monkeypatch):
    rng = np.random.default_rng(0)
    graph = ArrayGraph(rng.integers(0, 50, (50, 3)), rng.random((50, 3)))
    leaves = rng.integers(0, N_LEAVES, 50)
    whole = leaf_affinities(graph, leaves, N_LEAVES, 0, 50)
    monkeypatch.setattr("distspectral.clustering.leaves.BLOCK_EDGES", 20)
    parts = leaf_affinities(graph, leaves, N_LEAVES, 0, 30) + leaf_affinities(graph, leaves, N_LEAVES, 30, 50)
    np.testing.assert_allclose(parts.toarray(), whole.toarray())
    assert whole.sum() == pytest.approx(graph.block(0, 50)[1].sum())


def line(n_clusters=2):
    """Return an assigner whose clusters and leaves lie on a line."""
    centroids, leaves = torch.tensor([[0.0], [10.0]])[:n_clusters], torch.tensor([[4.0], [6.0], [-1.0], [11.0]])
    return Assigner(torch.ones(1), centroids, False, 1.0, leaves, torch.tensor([0, n_clusters - 1, 0, n_clusters - 1]))


def test_a_row_has_the_nearest_leaf_of_its_own_cluster(monkeypatch):
    rows = torch.tensor([[4.9], [5.1], [-2.0], [10.0], [4.0], [0.0]])
    expected = [0, 1, 2, 3, 0, 2]
    assert placed(line(), NOBODY, rows, rows).leaves.tolist() == expected
    monkeypatch.setattr("distspectral.models.assigner.LEAF_ROWS", 1)
    assert placed(line(), NOBODY, rows, rows).leaves.tolist() == expected


def test_margins_are_added_up_by_leaf():
    rows = torch.tensor([[0.0], [5.0], [1.0]])
    assert placed(line(), NOBODY, rows, rows).silhouettes == pytest.approx([0, 0, 1 + (1 - 1 / 9), 0], abs=1e-6)
    assert placed(line(1), Outliers.none(1, 1), rows, rows).silhouettes.sum() == 3


def test_clusters_are_parted_by_their_share_and_every_one_has_a_leaf():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(100, 2)) + 20]).astype(np.float32)
    assigner = Assigner(torch.ones(2), torch.tensor([[0.0, 0], [20, 20], [99, 99]]), False, 1.0)
    found = with_leaves(assigner, torch.from_numpy(points), 400, "auto", seed=0)
    counts = np.bincount(found.owners)
    assert counts[2] == 1
    assert found.leaves[found.owners == 2].tolist() == [[99, 99]]
    assert 40 <= counts[0] <= 45
    assert 12 <= counts[1] <= 15
    assert torch.equal(found(found.leaves)[0], found.owners)


def test_a_speck_is_no_leaf():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(500, 2)), [[50, 50]]]).astype(np.float32)
    assigner = Assigner(torch.ones(2), torch.zeros(1, 2), False, 1.0)
    found = with_leaves(assigner, torch.from_numpy(points), 501, "auto", seed=0)
    assert 15 <= len(found.leaves) < 20
    counts = np.bincount(placed(found, Outliers.none(1, 2), torch.from_numpy(points), torch.from_numpy(points)).leaves)
    assert counts.min() >= 0.2 * 501 / 20


def test_leaves_come_with_the_clusters(finished):
    assigner = load_leaves(finished.chain.artifact("cluster"), finished.chain.artifact("tree"))
    found, _ = load_tree(finished.chain.artifact("tree"))
    assert len(assigner.leaves) == found.n_leaves
    assert Assigner.from_state(assigner.state()).owners.tolist() == found.clusters.tolist()


def test_a_cluster_that_leaks_is_named():
    between = symmetric(sparse.csr_array([[8.0, 1, 0], [1, 9, 5], [0, 5, 2]]))
    sums = np.array([2.0, 4, 0]), np.array([1.0, 0, 0])
    three = grown(between, np.array([4, 4, 2]), np.arange(3))
    stable = np.array([0.9, 0.3, np.nan, 0.5, 1])
    facts = {"n_leaves": 3, "n_fine": 0, "outliers": 0.1, "clusters": quality(three, between, stable, *sums)}
    assert facts["clusters"]["stability"] == [0.9, 0.3, None]
    assert facts["clusters"]["silhouette"] == [0.5, 1, 0]
    assert facts["clusters"]["outliers"] == [0.25, 0, 0]
    assert facts["clusters"]["nearest"] == [1, 2, 1]
    leaking, dissolved, strange = TREE.notes({"tree": facts})
    assert "inside: 2. Ask for fewer" in leaking
    assert "half of the rows: 1. Do not" in dissolved
    assert "10.0% of the rows belong nowhere" in strange
    assert len(TREE.notes({"tree": facts | {"outliers": 0.01}})) == 2
    assert TREE.lines(facts) == {
        "tree": "3 leaves",
        "cluster that leaks most": "2: 71.4% of its affinity leads to others",
        "least stable cluster": "1: 0.30, where 1 means found again in any half of the rows",
        "rows that belong nowhere": "10.00%",
    }
