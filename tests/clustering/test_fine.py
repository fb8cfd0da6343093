"""Fine leaves in a run: rows join them, they nest in leaves, and a run is cut into more clusters than it has leaves."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distspectral.cli.app import EXIT_REFUSED, app
from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.fine import ROW_GROUPS, affinities_within
from distspectral.graph.store import MappedGraph
from distspectral.stages.tree import tree
from distspectral.stages.tree_files import load_fine_tree, load_tree
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from tests.runs import N_ROWS
from tests.stages.chain import opened


@pytest.fixture(scope="module")
def finished(finished_run):
    return opened(finished_run)


@pytest.fixture
def root(finished_run, finished, tmp_path, monkeypatch):
    """The run with a tree of 8 leaves and 30 fine ones."""
    monkeypatch.setattr("distspectral.clustering.micro_clusters.MOST_MICRO_CLUSTERS", 8)
    monkeypatch.setattr("distspectral.stages.tree.MOST_MICRO_CLUSTERS", 8)
    shutil.copytree(finished_run.parent / "root", tmp_path / "root")
    made = [finished.chain.artifact(name) for name in ("calibrate", "cluster", "graph")]
    before = finished.chain.artifact("tree").manifest()
    output = Output(Artifact(str(tmp_path / "root/tree")), "tree", before.fingerprint, {}, before.inputs)
    tree([finished.chain.artifact("pack")], *made, output, ClusterConfig(n_leaves=30), 0)
    return tmp_path / "root"


def rows_of(root):
    return pq.read_table(sorted((root / "tree").glob("fine-0*.parquet")))


def test_every_row_has_a_fine_leaf_inside_a_leaf(root, finished):
    artifact = Artifact(str(root / "tree"))
    fine, (coarse, between) = load_fine_tree(artifact), load_tree(artifact)
    rows = rows_of(root)
    assert rows["id"].to_pylist() == list(range(N_ROWS))
    groups = rows["fine"].to_numpy()
    assert fine.n_leaves >= 30 > coarse.n_leaves
    np.testing.assert_array_equal(np.bincount(groups, minlength=fine.n_leaves), fine.rows[: fine.n_leaves])
    for n_clusters in (1, 3, coarse.n_leaves):
        merged = np.bincount(fine.labels(n_clusters), fine.rows[: fine.n_leaves])
        np.testing.assert_array_equal(merged, np.bincount(coarse.labels(n_clusters), coarse.rows[: coarse.n_leaves]))
    np.testing.assert_allclose(fine.mass[-1], between.sum())
    assert not artifact.has(ROW_GROUPS)
    assert artifact.manifest().properties["n_fine"] == fine.n_leaves


def test_a_run_is_cut_into_fine_clusters(root):
    result = CliRunner().invoke(app, ["recut", str(root), "--n-clusters", "20", "--json"])
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)["clusters"]
    cut = pq.read_table(root / "cuts/n-clusters-20/clusters.parquet").to_pandas()
    joined = rows_of(root).to_pandas().merge(cut, on="fine")
    assert len(joined) == N_ROWS
    assert joined["cluster"].value_counts(sort=False).sort_index().tolist() == [one["rows"] for one in table]
    assert CliRunner().invoke(app, ["recut", str(root), "--n-clusters", "100"]).exit_code == EXIT_REFUSED


def test_affinities_are_added_up_over_ranges_and_blocks(finished, monkeypatch):
    graph = MappedGraph(finished.chain.artifact("graph"))
    rng = np.random.default_rng(0)
    owners = np.arange(12) % 4
    groups = rng.integers(0, 12, N_ROWS)
    found, mass = affinities_within(graph, groups, owners, 0, N_ROWS)
    neighbors, affinities = graph.block(0, N_ROWS)
    expected = np.zeros((12, 12))
    np.add.at(expected, (np.repeat(groups, neighbors.shape[1]), groups[neighbors.ravel()]), affinities.ravel())
    np.testing.assert_allclose(mass, expected.sum(0) + expected.sum(1), rtol=1e-6)
    np.testing.assert_allclose(found.toarray(), expected * (owners[:, None] == owners), rtol=1e-6)
    monkeypatch.setattr("distspectral.clustering.fine.BLOCK_EDGES", 50)
    parts = [affinities_within(graph, groups, owners, *part) for part in ((0, 70), (70, N_ROWS))]
    np.testing.assert_allclose((parts[0][0] + parts[1][0]).toarray(), found.toarray())
