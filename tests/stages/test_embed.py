from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from distspectral.datasets import write_vectors
from distspectral.errors import NonFiniteRowError, ShardWidthError
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.stages.encode import forward
from distspectral.storage.sources import Source
from distspectral.storage.vectors import MappedVectors
from tests.runs import DIM, N_ROWS
from tests.stages.chain import pipeline_upto

SIZES = (50, 30, 40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return pipeline_upto(tmp_path_factory.mktemp("run"), "embed", sizes=SIZES)


def tables(artifact):
    return [pq.read_table(path) for path in sorted(Path(artifact.path).glob("part-*.parquet"))]


def test_output_shards_hold_the_source_shards_rows_in_order(finished):
    parts = tables(finished.plan.artifact("embed"))
    assert [len(part) for part in parts] == list(SIZES)
    np.testing.assert_array_equal(np.concatenate([part["id"].to_numpy() for part in parts]), np.arange(N_ROWS))
    assert parts[0].schema.names == ["id", "embedding", "cluster", "distance"]


def test_columns_are_what_the_model_says_of_each_row(finished):
    vectors = MappedVectors(finished.plan.artifact("pack"))
    expected = forward(load_calibrated_network(finished.plan.artifact("calibrate")), vectors.block(0, N_ROWS))
    assigner = load_assigner(finished.plan.artifact("cluster"))
    parts = tables(finished.plan.artifact("embed"))
    embedding = np.concatenate([np.stack(part["embedding"].to_numpy()) for part in parts])
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)  # other blocks, other rounding
    points = assigner.coordinates(torch.from_numpy(embedding)).numpy()
    distances = np.linalg.norm(points[:, None] - assigner.centroids.numpy()[None], axis=2)
    cluster = np.concatenate([part["cluster"].to_numpy() for part in parts])
    np.testing.assert_array_equal(cluster, distances.argmin(1))
    # distances near zero lose digits in |p|^2 - 2 p c + |c|^2, all of size 1 in float32
    distance = np.concatenate([part["distance"].to_numpy() for part in parts])
    np.testing.assert_allclose(distance, distances.min(1), atol=2e-3)


def test_agreement_is_scikit_learns_on_the_written_clusters(finished):
    clusters = np.concatenate([part["cluster"].to_numpy() for part in tables(finished.plan.artifact("embed"))])
    labels = MappedVectors(finished.plan.artifact("pack")).labels().to_numpy()
    scores = finished.plan.artifact("embed").manifest().metrics["evaluate"]
    assert scores["ari"] == pytest.approx(adjusted_rand_score(labels, clusters))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))


def test_tallies_count_every_row_once(finished):
    shards = finished.plan.artifact("embed").manifest().shards
    assert sum(sum(shard.details["cluster_counts"]) for shard in shards) == N_ROWS
    assert sum(count for shard in shards for _, _, count in shard.details["label_counts"]) == N_ROWS


def test_rows_of_another_width_are_refused(finished, tmp_path):
    write_vectors(str(tmp_path / "wide"), np.ones((5, DIM + 1), np.float32))
    source = Source.open(finished.config.data.model_copy(update={"path": str(tmp_path / "wide"), "label_column": None}))
    with pytest.raises(ShardWidthError, match=f"width {DIM + 1}.*trained on {DIM}"):
        finished.embed_other(source, str(tmp_path / "out"))


def test_a_bad_row_leaves_no_shard_behind(finished, tmp_path):
    vectors = np.ones((6, DIM), np.float32)
    vectors[4, 2] = np.nan
    write_vectors(str(tmp_path / "bad"), vectors)
    source = Source.open(finished.config.data.model_copy(update={"path": str(tmp_path / "bad"), "label_column": None}))
    with pytest.raises(NonFiniteRowError, match="row 4"):
        finished.embed_other(source, str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.parquet"))
