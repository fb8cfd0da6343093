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
from tests.datasets import blobs
from tests.runs import DIM, N_ROWS, write_run
from tests.stages.chain import opened

CHAIN = ("pack", "neighbors", "graph", "train", "calibrate", "cluster", "tree", "map", "embed", "exemplars")


@pytest.fixture(scope="module")
def pipeline(finished_run: Path) -> Pipeline:
    return opened(finished_run)


@pytest.fixture(scope="module")
def output(pipeline: Pipeline) -> pa.Table:
    files = sorted(Path(pipeline.chain.artifact("embed").path).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def sample(pipeline: Pipeline, seed: int = 0, **most: int) -> report.ScatterSample:
    artifact = pipeline.chain.artifact("embed")
    return report.scatter_sample(pipeline.chain.artifact("pack"), artifact, artifact.manifest(), seed, **most)


def test_a_small_output_is_shown_whole_without_the_constant_column(pipeline: Pipeline, output: pa.Table) -> None:
    shown = sample(pipeline)
    embedding = np.stack(output["embedding"].to_pylist())
    assert shown.n_rows_sampled == N_ROWS
    assert np.array_equal(shown.x, embedding[:, 1])
    assert np.array_equal(shown.y, embedding[:, 2])
    assert shown.cluster == output["cluster"].to_pylist()
    assert shown.labels == blobs(N_ROWS, DIM)[1].tolist()


def test_a_large_output_is_sampled_with_labels_of_the_same_rows(pipeline: Pipeline, output: pa.Table) -> None:
    most = {"most_rows": 20, "most_shards": 2}
    shown = sample(pipeline, **most)
    assert shown.n_rows_sampled == 20
    assert shown == sample(pipeline, **most)
    assert shown != sample(pipeline, seed=1, **most)
    labels = blobs(N_ROWS, DIM)[1]
    by_x = {np.float32(vector[1]): row for row, vector in enumerate(output["embedding"].to_pylist())}
    rows = [by_x[np.float32(x)] for x in shown.x]
    assert len(set(rows)) == 20
    assert shown.labels == labels[rows].tolist()
    assert shown.cluster == output["cluster"].take(rows).to_pylist()


def collected(pipeline: Pipeline, *found: Any) -> report.ReportData:
    config = pipeline.config.model_dump(mode="json")
    return report.collect(config, pipeline.recipe, pipeline.chain.stages, *found)


def test_the_facts_shown_are_those_of_the_artifacts(pipeline: Pipeline, output: pa.Table) -> None:
    manifests = {name: pipeline.chain.artifact(name).manifest() for name in CHAIN}
    artifacts = {name: pipeline.chain.artifact(name) for name in CHAIN}
    metrics = run_metrics("tiny", pipeline.chain.stages, manifests, 3)
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
    assert data.spectrum.gaps[1] == pytest.approx((values[2] - values[1]) / values[2])
    assert data.graph.n_neighbors == 8
    assert data.evaluation is not None
    assert data.evaluation.model_dump() == manifests["embed"].metrics["agreement"]
    assert metrics["seconds"] == {name: manifests[name].metrics["seconds"] for name in CHAIN}
    assert data.certificate is not None
    assert data.certificate.words == metrics["calibrate"]["certificate"]["words"]
    assert data.capacity is not None
    assert data.capacity.widths == [DIM, 16, 5]
    assert data.capacity.needed == N_ROWS / 10
    assert data.capacity.drawn == pytest.approx(sum(metrics["train"]["ritz_values"][:4]))
    assert data.capacity.every == pytest.approx(sum(values[:4]))
    assert data.capacity.unseen == pytest.approx(np.exp(-40 * 64 / (N_ROWS * 8)))


def test_ritz_sums_that_part_are_noted_and_other_graphs_edges_are_not_compared(pipeline: Pipeline) -> None:
    manifests = {name: pipeline.chain.artifact(name).manifest() for name in CHAIN}
    artifacts = {name: pipeline.chain.artifact(name) for name in CHAIN}
    metrics = run_metrics("tiny", pipeline.chain.stages, manifests, 3)
    metrics["calibrate"]["edges"] |= {"drawn": 0.1, "every": 0.13, "unseen": 0.9}
    notes = collected(pipeline, metrics, artifacts, manifests).notes
    assert [note for note in notes if "30% above" in note and "stop earlier" in note]
    metrics["calibrate"]["edges"]["every"] = 0.105
    assert not [
        note for note in collected(pipeline, metrics, artifacts, manifests).notes if "above that of the edges" in note
    ]
    training = manifests["train"]
    inside = training.config | {"affinity": training.config["affinity"] | {"scope": "batch"}}
    manifests["train"] = training.model_copy(update={"config": inside})
    metrics = run_metrics("tiny", pipeline.chain.stages, manifests, 3)
    assert "edges" not in metrics["calibrate"]
    assert collected(pipeline, metrics, artifacts, manifests).capacity is None


def test_a_run_whose_rows_lack_some_labels_is_scored_and_drawn(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    shard = tmp_path / "data/part-00001.parquet"
    table = pq.read_table(shard)
    labels = pa.array([None if row % 2 else row % 3 for row in range(len(table))], pa.int64())
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", labels), shard)
    pipeline = opened(path)
    assert "agreement" in pipeline.run()["embed"]
    shown = sample(pipeline)
    assert set(shown.labels) == {"0", "1", "2", "no label"}
    assert "no label" in (tmp_path / "root/report.html").read_text()
