"""Samples of a run's rows: balanced, weighed, the same however shards are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse

from distspectral.curation import sample as module
from distspectral.curation.sample import BRANCHES, Balance, Drawn, sample
from distspectral.errors import ConfigError, MissingArtifactError, TooFewRowsError
from distspectral.models.state import write_state
from distspectral.spectral.tree import Tree
from distspectral.stages.tree_files import AFFINITIES, LEAVES, NODES, affinity_table, node_table, write_table
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.receipts import write_shard

N_CLUSTERS = 2
CLUSTER_OF = np.repeat([0, 1], 20)
"""Of each leaf."""
SIZES = np.arange(40) ** 2 % 97 + 1
"""Rows of each leaf."""


def chained() -> Tree:
    """Return a tree: the leaves of each cluster merge one after the other, then the clusters."""
    children = [[0, 1], *([node, leaf] for node, leaf in enumerate(range(2, 20), 40))]
    children += [[20, 21], *([node, leaf] for node, leaf in enumerate(range(22, 40), 59)), [58, 77]]
    rows = [*SIZES.tolist()]
    for left, right in children:
        rows.append(rows[left] + rows[right])
    nothing = np.zeros(79)
    return Tree(np.array(children), np.array(rows), nothing, nothing, np.zeros(39), nothing, CLUSTER_OF)


def finished(folder: Path, shards: list[int], *, has_tree: bool = True, columns: tuple[str, ...] = ()) -> Artifact:
    """Return the root of what looks like a finished run of shuffled rows."""
    root = Artifact(str(folder))
    leaves = np.random.default_rng(0).permutation(np.repeat(np.arange(40), SIZES))
    ids = [f"row {number}" for number in range(len(leaves))]
    table = pa.table(
        {"id": ids, "cluster": CLUSTER_OF[leaves].astype(np.int32), "leaf": leaves.astype(np.int32)},
    )
    output = Output(root.child("output"), "embed", "print", {}, {})
    output.begin()
    cuts = np.cumsum([0, *shards, len(leaves) - sum(shards)])

    def put(stream: Any, part: pa.Table) -> int:
        pq.write_table(part, stream)
        return part.num_rows

    made = [
        write_shard(output.artifact, f"part-{i:05d}.parquet", lambda s, i=i: put(s, table[cuts[i] : cuts[i + 1]]))  # type: ignore[misc]
        for i in range(len(cuts) - 1)
    ]
    properties = {"n_clusters": N_CLUSTERS, "columns": list(columns or ("cluster", "leaf"))}
    output.commit(made, properties, {})
    if has_tree:
        tree = Output(root.child("tree"), "tree", "print", {}, {})
        tree.begin()
        write_state(tree.artifact, LEAVES, {"owners": torch.from_numpy(CLUSTER_OF)})
        write_table(tree.artifact, NODES, node_table(chained(), np.ones(79)))
        write_table(tree.artifact, AFFINITIES, affinity_table(sparse.csr_array((40, 40))))
        tree.commit([], {}, {}, files=(LEAVES, NODES, AFFINITIES))
    return root


def drawn(
    root: Artifact, n_rows: int, balance: Balance = "tree", seed: int = 0, *, replace: bool = False
) -> tuple[Drawn, pa.Table]:
    facts = sample(root, n_rows, balance, seed, root, "sample.parquet", replace=replace)
    return facts, pq.read_table(Path(root.path) / "sample.parquet")


def leaves_of(table: pa.Table) -> NDArray[np.int64]:
    return np.bincount(table["leaf"].to_numpy(), minlength=40)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return finished(tmp_path_factory.mktemp("run"), [100, 700])


def test_the_tree_balances_clusters_then_branches_then_leaves(root: Artifact) -> None:
    facts, table = drawn(root, 400)
    assert table.schema.names == ["id", "leaf", "cluster", "weight"]
    assert np.bincount(table["cluster"].to_numpy()).tolist() == facts.clusters.tolist() == [200, 200]
    assert len(set(table["id"].to_pylist())) == 400 == facts.n_rows
    assert facts.all_clusters.tolist() == np.bincount(CLUSTER_OF, SIZES).tolist()
    tops = chained().tops(N_CLUSTERS * BRANCHES)
    # below a cluster, the cut into 16 leaves 14 pairs of leaves merged late and the first merged leaves
    of_node = np.bincount(tops, leaves_of(table))
    full = np.bincount(tops, SIZES)
    for cluster in (0, 1):
        nodes = np.unique(tops[cluster == CLUSTER_OF])
        level = max(of_node[nodes])
        assert all(of_node[node] >= min(full[node], level - 1) for node in nodes)


def test_without_replacement_no_leaf_gives_more_than_it_has_and_all_rows_are_all(root: Artifact) -> None:
    n_all = int(SIZES.sum())
    facts, table = drawn(root, n_all)
    assert (leaves_of(table) == SIZES).all()
    assert set(table["weight"].to_pylist()) == {1.0}
    assert facts.groups == facts.groups_drawn == 40
    _, most = drawn(root, n_all - 7)
    assert (leaves_of(most) <= SIZES).all()
    with pytest.raises(TooFewRowsError, match="--replace"):
        drawn(root, n_all + 1)
    assert drawn(root, n_all + 1, replace=True)[1].num_rows == n_all + 1
    with pytest.raises(ConfigError, match="at least 1"):
        drawn(root, 0)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("balance", ["tree", "clusters", "none"])
def test_weights_add_up_to_the_run_on_average(root: Artifact, balance: Balance, replace: bool) -> None:
    totals = []
    for seed in range(60):
        _, table = drawn(root, 100, balance, seed, replace=replace)
        totals.append(np.bincount(table["cluster"].to_numpy(), table["weight"].to_numpy(), N_CLUSTERS))
    error = np.std(totals, axis=0) / np.sqrt(60) + 1e-9
    assert np.abs(np.mean(totals, axis=0) - np.bincount(CLUSTER_OF, SIZES)).max() < 4 * error.max()


def test_clusters_alone_are_balanced_or_nothing_is(root: Artifact) -> None:
    facts, table = drawn(root, 300, "clusters")
    assert facts.clusters.tolist() == [150, 150]
    assert table.schema.names == ["id", "cluster", "weight"]
    assert table["weight"].to_numpy() == pytest.approx(facts.all_clusters[table["cluster"].to_numpy()] / 150)
    facts, table = drawn(root, 300, "none")
    assert set(table["weight"].to_pylist()) == {SIZES.sum() / 300}


def test_rows_with_replacement_come_several_times_from_all_places(root: Artifact) -> None:
    _, table = drawn(root, 5000, "clusters", replace=True)
    ids, times = np.unique(table["id"].to_numpy(), return_counts=True)
    assert times.max() > 2
    assert len(ids) > 0.8 * SIZES.sum()


def test_every_row_of_a_leaf_is_drawn_as_often(root: Artifact) -> None:
    times: dict[str, int] = {}
    for seed in range(200):
        for one in drawn(root, 400, "none", seed)[1]["id"].to_pylist():
            times[one] = times.get(one, 0) + 1
    n_all = int(SIZES.sum())
    chance = 400 / n_all
    counts = np.array([*times.values(), *[0] * (n_all - len(times))])
    assert counts.mean() == pytest.approx(200 * chance)
    assert counts.std() == pytest.approx(np.sqrt(200 * chance * (1 - chance)), rel=0.1)


@pytest.mark.parametrize("replace", [False, True])
def test_shards_and_blocks_decide_nothing_and_the_seed_all(
    root: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    _, table = drawn(root, 250, replace=replace)
    assert json.loads(table.schema.metadata[b"distspectral"])["seed"] == 0
    monkeypatch.setattr(module, "BLOCK_ROWS", 64)
    other = drawn(finished(tmp_path, [3, 500, 41]), 250, replace=replace)[1]
    assert other.equals(table)
    assert not drawn(root, 250, seed=1, replace=replace)[1].equals(table)


def test_a_metric_has_no_clusters_to_balance(tmp_path: Path) -> None:
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding" / MANIFEST).write_text("{}")
    with pytest.raises(ConfigError, match="objective dscl has no clusters; take one of objective spectral"):
        drawn(Artifact(str(tmp_path)), 10)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    root = finished(tmp_path, [100], has_tree=False, columns=("embedding",))
    with pytest.raises(ConfigError, match="without the column cluster"):
        drawn(root, 10)
    with pytest.raises(ConfigError, match="without the column leaf"):
        drawn(finished(tmp_path / "leafless", [100], columns=("cluster",)), 10)
    root = finished(tmp_path / "other", [100], has_tree=False)
    with pytest.raises(MissingArtifactError, match="finished tree"):
        drawn(root, 10)
    assert drawn(root, 10, "clusters")[1].num_rows == 10
