from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.orchestration.pipeline import Pipeline
from distspectral.report import collect as report
from distspectral.report.metrics import run_metrics
from distspectral.report.rows import row_sample
from distspectral.stages.tree_files import load_tree
from tests.runs import CHAIN, DIM, N_ROWS, write_run
from tests.stages.chain import opened, pipeline_upto


@pytest.fixture(scope="module")
def pipeline(finished_run: Path) -> Pipeline:
    return opened(finished_run)


@pytest.fixture(scope="module")
def by_descent(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline_upto(tmp_path_factory.mktemp("descent"), "exemplars", distill={"enabled": False})


@pytest.fixture(scope="module")
def output(pipeline: Pipeline) -> pa.Table:
    files = sorted(Path(pipeline.chain.artifact("embed").path).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def collected(pipeline: Pipeline, *found: Any) -> report.ReportData:
    config = pipeline.config.model_dump(mode="json")
    return report.collect(config, pipeline.recipe, pipeline.chain.stages, *found)


def test_the_facts_shown_are_those_of_the_artifacts(pipeline: Pipeline, output: pa.Table) -> None:
    manifests = {name: pipeline.chain.artifact(name).manifest() for name in CHAIN}
    artifacts = {name: pipeline.chain.artifact(name) for name in CHAIN}
    metrics = run_metrics("tiny", pipeline.chain.stages, manifests)
    data = collected(pipeline, metrics, artifacts, manifests)
    assert (data.n_rows, data.dim, data.n_shards, data.dtype) == (N_ROWS, DIM, 3, "float32")
    assert data.clusters.sizes == np.bincount(output["cluster"].to_numpy(), minlength=3).tolist()
    mean = [output.filter(pa.compute.equal(output["cluster"], c))["distance"].to_numpy().mean() for c in range(3)]
    np.testing.assert_allclose(data.clusters.mean_distance, mean, rtol=1e-5)
    assert data.clusters.silhouette == manifests["tree"].properties["clusters"]["silhouette"]
    assert data.clusters.sizes == manifests["tree"].properties["clusters"]["rows"]
    restarts = manifests["cluster"].properties["restarts"]
    assert metrics["cluster"]["restarts"] == restarts
    assert data.clusters.found_by.startswith(f"{restarts['lowest']} of 2 runs of k-means")
    assert [window.step for window in data.training.history] == [20, 40]
    assert data.spectrum.n_kept == 4
    values = data.spectrum.ritz_values
    assert values == sorted(values)
    assert data.spectrum.gaps[2] == pytest.approx((values[3] - values[2]) / values[3])
    assert data.graph.n_neighbors == 8
    assert data.evaluation is not None
    assert data.evaluation.model_dump() == manifests["embed"].metrics["agreement"]
    assert metrics["seconds"] == {name: manifests[name].metrics["seconds"] for name in CHAIN}
    assert data.certificate is not None
    assert data.certificate.words == metrics["calibrate"]["certificate"]["words"]
    assert data.edges is None, "functions were taught, by no edges"
    assert data.taught is not None
    assert data.taught.loss == manifests["distill"].metrics["loss"]
    assert data.taught.held_out_loss == manifests["distill"].metrics["held_out_loss"]
    assert data.taught.passes == manifests["polish"].metrics["passes"]


def test_descent_alone_is_judged_by_edges_it_never_drew(by_descent: Pipeline) -> None:
    manifests = {name: output.artifact.manifest() for name, output in by_descent.chain.outputs.items()}
    artifacts = {name: by_descent.chain.artifact(name) for name in manifests}
    metrics = run_metrics("tiny", by_descent.chain.stages, manifests)
    data = collected(by_descent, metrics, artifacts, manifests)
    assert data.taught is None
    assert data.edges is not None
    assert data.edges.drawn == pytest.approx(sum(metrics["train"]["ritz_values"][:4]))
    assert data.edges.every == pytest.approx(sum(data.spectrum.ritz_values[:4]))
    assert data.edges.unseen == pytest.approx(np.exp(-40 * 64 / (N_ROWS * 8)))


def remedies(data: report.ReportData) -> list[str]:
    return [remedy for check in data.checks for remedy in check.remedies]


def test_the_tree_exemplars_and_labels_are_those_of_the_run(pipeline: Pipeline, output: pa.Table) -> None:
    manifests = {name: pipeline.chain.artifact(name).manifest() for name in CHAIN}
    artifacts = {name: pipeline.chain.artifact(name) for name in CHAIN}
    data = collected(pipeline, run_metrics("tiny", pipeline.chain.stages, manifests), artifacts, manifests)
    assert data.root == pipeline.config.root
    assert data.fingerprint == manifests["exemplars"].fingerprint
    assert data.tree is not None
    assert data.exemplars is not None
    of_leaf = np.asarray(data.tree.clusters)[data.rows.leaf]
    assert of_leaf.tolist() == output["cluster"].to_pylist() == data.rows.cluster
    assert data.tree.rows[-1] == N_ROWS
    table = pq.read_table(f"{pipeline.config.root}/exemplars/exemplars.parquet")
    assert data.exemplars.ids == [str(one) for one in table["id"].to_pylist()]
    assert data.confusion is not None
    assert np.asarray(data.confusion.counts).sum() == N_ROWS
    assert data.row_pictures is None, "five features are no square"
    assert data.checks[0].title == "The learned functions"


def test_a_large_tree_is_shown_by_its_top_and_leaves_keep_their_clusters(pipeline: Pipeline) -> None:
    tree = load_tree(pipeline.chain.artifact("tree"))[0]
    assert tree.n_leaves > 6
    facts, leaves = report.pruned(tree, 6)
    assert len(facts.clusters) == 6
    assert len(facts.rows) == len(facts.nodes) == 11
    assert np.array_equal(np.asarray(facts.clusters)[leaves], tree.clusters)
    assert np.array_equal(np.bincount(leaves, tree.rows[: tree.n_leaves]), facts.rows[:6])
    by_cut = tree.labels(6)
    assert len(set(zip(leaves, by_cut, strict=True))) == 6, "the leaves are the clusters of that cut"
    for merger, (left, right) in enumerate(np.reshape(facts.children, (-1, 2)), 6):
        assert facts.rows[merger] == facts.rows[left] + facts.rows[right]
    whole, same = report.pruned(tree, 1000)
    assert whole.nodes == list(range(2 * tree.n_leaves - 1))
    assert np.array_equal(same, np.arange(tree.n_leaves))


def test_ritz_sums_that_part_are_noted_and_other_graphs_edges_are_not_compared(by_descent: Pipeline) -> None:
    pipeline = by_descent
    manifests = {name: output.artifact.manifest() for name, output in pipeline.chain.outputs.items()}
    artifacts = {name: pipeline.chain.artifact(name) for name in manifests}
    metrics = run_metrics("tiny", pipeline.chain.stages, manifests)
    metrics["calibrate"]["edges"] |= {"drawn": 0.1, "every": 0.13, "unseen": 0.9}
    told = remedies(collected(pipeline, metrics, artifacts, manifests))
    assert [note for note in told if "Ritz sum of all edges is 30% above" in note and "stop earlier" in note]
    metrics["calibrate"]["sampled_rows"] = 100
    found = collected(pipeline, metrics, artifacts, manifests)
    assert found.edges is not None
    assert found.edges.sampled_rows == 100
    assert [note for note in remedies(found) if "Ritz sum of sampled edges is 30% above" in note]
    metrics["calibrate"]["edges"]["every"] = 0.105
    told = remedies(collected(pipeline, metrics, artifacts, manifests))
    assert not [note for note in told if "above that of the edges" in note]
    training = manifests["train"]
    inside = training.config | {"affinity": training.config["affinity"] | {"scope": "batch"}}
    manifests["train"] = training.model_copy(update={"config": inside})
    metrics = run_metrics("tiny", pipeline.chain.stages, manifests)
    assert "edges" not in metrics["calibrate"]
    assert collected(pipeline, metrics, artifacts, manifests).edges is None


def test_a_run_whose_rows_lack_some_labels_is_scored_and_drawn(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    shard = tmp_path / "data/part-00001.parquet"
    table = pq.read_table(shard)
    labels = pa.array([None if row % 2 else row % 3 for row in range(len(table))], pa.int64())
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", labels), shard)
    pipeline = opened(path)
    assert "agreement" in pipeline.run()["embed"]
    artifact = pipeline.chain.artifact("embed")
    shown, _ = row_sample(pipeline.chain.artifact("pack"), artifact, artifact.manifest(), 0)
    assert set(shown.labels or []) == {"0", "1", "2", "no label"}
    assert "no label" in (tmp_path / "root/report.html").read_text()
