from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from distspectral.datasets import write_vectors
from distspectral.embedding.columns import RowColumns
from distspectral.embedding.forward import forward
from distspectral.errors import ConfigError, FingerprintMismatchError, NonFiniteRowError, ShardWidthError
from distspectral.mapping import local_map
from distspectral.models.embedder import Embedder
from distspectral.orchestration.new_rows import embed_new_rows
from distspectral.report.agreement import agreement
from distspectral.report.rows import row_sample
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.cluster import load_assigner
from distspectral.stages.embed import EmbedConfig, Models, embed, embed_part
from distspectral.stages.map import load_map
from distspectral.stages.stage import Unfinished
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source
from tests.datasets import as_lists, blobs
from tests.runs import DIM, N_ROWS
from tests.stages.chain import opened

SIZES = (50, 30, 40)

MODELS = ("calibrate", "cluster", "tree")


@pytest.fixture(scope="module")
def finished(finished_run):
    return opened(finished_run)


def tables(artifact):
    return [pq.read_table(path) for path in sorted(Path(artifact.path).glob("part-*.parquet"))]


def test_output_shards_hold_the_source_shards_rows_in_order(finished):
    parts = tables(finished.chain.artifact("embed"))
    assert [len(part) for part in parts] == list(SIZES)
    np.testing.assert_array_equal(np.concatenate([part["id"].to_numpy() for part in parts]), np.arange(N_ROWS))
    columns = ["embedding", "cluster", "distance", "margin", "leaf", "is_outlier", "x", "y"]
    assert parts[0].schema.names == ["id", *columns]


def test_columns_are_what_the_model_says_of_each_row(finished):
    vectors = MappedVectors(finished.chain.artifact("pack"))
    expected = forward(load_calibrated_network(finished.chain.artifact("calibrate")), vectors.block(0, N_ROWS))
    assigner = load_assigner(finished.chain.artifact("cluster"))
    parts = tables(finished.chain.artifact("embed"))
    embedding = np.concatenate([np.stack(part["embedding"].to_numpy()) for part in parts])
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)  # other blocks, other rounding
    points = assigner.coordinates(torch.from_numpy(embedding)).numpy()
    distances = np.linalg.norm(points[:, None] - assigner.centroids.numpy()[None], axis=2)
    cluster = np.concatenate([part["cluster"].to_numpy() for part in parts])
    np.testing.assert_array_equal(cluster, distances.argmin(1))
    # distances near zero lose digits in |p|^2 - 2 p c + |c|^2, all of size 1 in float32
    distance = np.concatenate([part["distance"].to_numpy() for part in parts])
    np.testing.assert_allclose(distance, distances.min(1), atol=2e-3)
    margin = np.concatenate([part["margin"].to_numpy() for part in parts])
    np.testing.assert_allclose(margin, np.diff(np.sort(distances, axis=1))[:, 0], atol=4e-3)


def test_places_are_those_of_the_map(finished):
    vectors = MappedVectors(finished.chain.artifact("pack"))
    network, drawn = (
        load_calibrated_network(finished.chain.artifact("calibrate")),
        load_map(finished.chain.artifact("map")),
    )
    rows = torch.from_numpy(vectors.block(0, N_ROWS).copy())
    with torch.inference_mode():
        expected = drawn(rows, network(rows)).numpy()
    assert np.ptp(expected, axis=0).min() > 1, "a map of one point says nothing"
    parts = tables(finished.chain.artifact("embed"))
    for place, name in enumerate(("x", "y")):
        assert parts[0].schema.field(name).type == pa.float32()
        found = np.concatenate([part[name].to_numpy() for part in parts])
        np.testing.assert_allclose(found, expected[:, place], rtol=1e-4, atol=1e-4)


def test_a_run_without_a_map_writes_no_places_and_refuses_to(finished, tmp_path):
    models = Models(*(finished.chain.artifact(name) for name in MODELS))
    output = Output(Artifact(str(tmp_path / "out")), "embed", "print", {}, {})
    manifest = embed(finished.source, models, output, EmbedConfig())
    assert manifest.properties["columns"] == ["embedding", "cluster", "distance", "margin", "leaf", "is_outlier"]
    with pytest.raises(ConfigError, match=r"embed\.columns: asks for y, a place on the map.*map\.enabled is"):
        embed(finished.source, models, output, EmbedConfig(columns=["cluster", "y"]))


def test_agreement_is_scikit_learns_on_the_written_clusters(finished):
    clusters = np.concatenate([part["cluster"].to_numpy() for part in tables(finished.chain.artifact("embed"))])
    labels = MappedVectors(finished.chain.artifact("pack")).labels().to_numpy()
    scores = finished.chain.artifact("embed").manifest().metrics["agreement"]
    assert scores["ari"] == pytest.approx(adjusted_rand_score(labels, clusters))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))


def test_tallies_count_every_row_once(finished):
    shards = finished.chain.artifact("embed").manifest().shards
    assert sum(sum(shard.details["cluster_counts"]) for shard in shards) == N_ROWS
    assert sum(count for shard in shards for _, _, count in shard.details["label_counts"]) == N_ROWS


def test_rows_of_another_width_are_refused(finished, tmp_path):
    write_vectors(str(tmp_path / "wide"), np.ones((5, DIM + 1), np.float32))
    source = Source.open(finished.config.data.model_copy(update={"path": str(tmp_path / "wide"), "label_column": None}))
    with pytest.raises(ShardWidthError, match=f"width {DIM + 1}.*trained on {DIM}"):
        embed_new_rows(finished, source, str(tmp_path / "out"))


def test_a_bad_row_leaves_no_shard_behind(finished, tmp_path):
    vectors = np.ones((6, DIM), np.float32)
    vectors[4, 2] = np.nan
    write_vectors(str(tmp_path / "bad"), vectors)
    source = Source.open(finished.config.data.model_copy(update={"path": str(tmp_path / "bad"), "label_column": None}))
    with pytest.raises(NonFiniteRowError, match="row 4"):
        embed_new_rows(finished, source, str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.parquet"))


# ---- columns, precision, batches ----------------------------------------------------------------------------------


def embedded(finished, folder, **config):
    """Embed the run's own rows once more, by another config; return the output."""
    plan = finished.chain
    settings = EmbedConfig(**config)
    output = Output(Artifact(str(folder / "out")), "embed", str(hash(settings)), {}, {})
    embed(finished.source, Models.of({name: plan.artifact(name) for name in (*MODELS, "map")}), output, settings)
    return output.artifact


def column(artifact, name):
    values = [np.asarray(part[name].to_pylist()) for part in tables(artifact)]
    return np.concatenate(values)


def test_columns_are_those_asked_for_in_that_order(finished, tmp_path):
    artifact = embedded(finished, tmp_path, columns=["nearest_clusters", "distance"])
    assert tables(artifact)[0].schema.names == ["id", "nearest_clusters", "distance"]
    assert artifact.manifest().properties["columns"] == ["nearest_clusters", "distance"]


def test_probabilities_and_nearest_clusters_follow_from_the_distances(finished, tmp_path):
    artifact = embedded(
        finished, tmp_path, columns=["embedding", "cluster", "probabilities", "nearest_clusters"], n_nearest=2
    )
    clusters = finished.chain.artifact("cluster")
    assigner, variance = load_assigner(clusters), clusters.manifest().properties["variance"]
    points = assigner.coordinates(torch.from_numpy(column(artifact, "embedding").astype(np.float32))).numpy()
    squared = np.square(points[:, None].astype(float) - assigner.centroids.numpy()[None]).sum(2)
    assert variance == pytest.approx(squared.min(1).mean() / points.shape[1], rel=1e-3)  # k-means saw all rows here
    weights = np.exp(-(squared - squared.min(1, keepdims=True)) / (2 * variance))
    probabilities = column(artifact, "probabilities")
    np.testing.assert_allclose(probabilities, weights / weights.sum(1, keepdims=True), atol=1e-3)
    nearest = column(artifact, "nearest_clusters")
    np.testing.assert_array_equal(nearest, np.argsort(squared, axis=1)[:, :2])
    np.testing.assert_array_equal(nearest[:, 0], column(artifact, "cluster"))


def test_there_are_no_more_nearest_clusters_than_clusters(finished, tmp_path):
    assert (
        column(embedded(finished, tmp_path, columns=["nearest_clusters"], n_nearest=99), "nearest_clusters").shape[1]
        == 3
    )


def test_without_a_cluster_column_rows_are_evaluated_but_not_joined_or_drawn(finished, tmp_path):
    artifact = embedded(finished, tmp_path, columns=["embedding"])
    manifest = artifact.manifest()
    assert manifest.metrics["agreement"] == finished.chain.artifact("embed").manifest().metrics["agreement"]
    assert agreement(artifact, None, "id", "label").scores()["n_rows"] == N_ROWS
    with pytest.raises(ConfigError, match=r"without the column cluster; add it to embed\.columns"):
        agreement(artifact, str(tmp_path), "id", "label")
    assert row_sample(finished.chain.artifact("pack"), artifact, manifest, 0)[0].n_rows == 0


@pytest.mark.parametrize("columns", [[], ["cluster", "cluster"], ["clusters"]])
def test_columns_that_cannot_be_are_refused(columns):
    with pytest.raises(ValueError, match="columns"):
        EmbedConfig(columns=columns)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_for_the_network_alone(finished, tmp_path, precision):
    artifact = embedded(finished, tmp_path, precision=precision)
    exact = column(finished.chain.artifact("embed"), "embedding")
    found = column(artifact, "embedding")
    assert 1e-6 < np.abs(found - exact).mean() < 0.02
    assigner = load_assigner(finished.chain.artifact("cluster"))
    cluster, distance = assigner(torch.from_numpy(found.astype(np.float32)))
    np.testing.assert_array_equal(column(artifact, "cluster"), cluster.numpy())
    np.testing.assert_allclose(column(artifact, "distance"), distance.numpy(), atol=2e-3)


def test_all_columns_are_one_graph_for_the_compiler(finished):
    network, assigner = (
        load_calibrated_network(finished.chain.artifact("calibrate")),
        load_assigner(finished.chain.artifact("cluster")),
    )
    columns = RowColumns(
        Embedder(network, assigner), ["embedding", "margin", "probabilities", "nearest_clusters"], 2
    ).eval()
    rows = torch.randn(9, DIM)
    traced = torch.compile(columns, backend="eager", fullgraph=True)
    with torch.inference_mode():
        for name, made in traced(rows).items():
            torch.testing.assert_close(made, columns(rows)[name])


# ---- large files ---------------------------------------------------------------------------------------------------


def large(finished, folder, most_rows=40, **config):
    """Return the run's rows as one file of eight row groups, cut into pieces."""
    rows = finished.config.data.path
    pq.write_table(pq.read_table(rows), folder / "large.parquet", row_group_size=16)
    data = finished.config.data.model_copy(update={"path": str(folder / "large.parquet"), **config})
    return Source.open(data, most_rows=most_rows)


def test_pieces_of_a_large_file_are_items_and_shards_of_their_own(finished, tmp_path):
    plan, items = finished.chain, []

    def mapper(function, found, description, *, on_gpu):
        items.extend((name, shard.n_rows) for name, shard, _ in found)
        assert on_gpu
        return local_map(function, found[::-1], description)

    output = Output(Artifact(str(tmp_path / "out")), "embed", "print", {}, {})
    models = Models(*(plan.artifact(name) for name in MODELS))
    embed(large(finished, tmp_path), models, output, EmbedConfig(), mapper)
    assert items == [(f"part-0000{index}.parquet", n_rows) for index, n_rows in enumerate((48, 32, 40))]
    ours, whole = (pa.concat_tables(tables(artifact)) for artifact in (output.artifact, plan.artifact("embed")))
    assert ours["id"] == whole["id"]
    assert ours["cluster"] == whole["cluster"]
    np.testing.assert_allclose(ours["embedding"].to_pylist(), whole["embedding"].to_pylist(), rtol=1e-4, atol=1e-5)


def test_processes_share_the_pieces_of_one_file(finished, tmp_path):
    source, plan = large(finished, tmp_path), finished.chain
    output = Output(Artifact(str(tmp_path / "out")), "embed", "one print", {"a": 1}, {})
    models = Models(*(plan.artifact(name) for name in MODELS))
    first = embed_part(source, models, output, EmbedConfig(), range(1, 3))
    assert (first.n_done, first.n_shards) == (2, 3)
    assert embed_part(source, models, output, EmbedConfig(), range(1)).n_rows == N_ROWS


# ---- several processes, one output --------------------------------------------------------------------------------


def parts(finished, folder, shards, mapper=local_map):
    plan = finished.chain
    output = Output(Artifact(str(folder / "shared")), "embed", "one print", {"a": 1}, {})
    models = Models(*(plan.artifact(name) for name in (*MODELS, "map")))
    return embed_part(finished.source, models, output, EmbedConfig(), shards, mapper)


def test_processes_fill_one_output_and_the_last_finishes_it(finished, tmp_path):
    first = parts(finished, tmp_path, range(2, 9))  # a last job may reach beyond the last shard
    assert isinstance(first, Unfinished)
    assert (first.n_done, first.n_shards, first.metrics["embedded_shards"]) == (1, 3, 1)
    assert not (tmp_path / "shared/.manifest.json").exists()
    assert parts(finished, tmp_path, range(0, 1)).n_done == 2
    again = parts(finished, tmp_path, range(0, 1))
    assert (again.n_done, again.metrics["embedded_shards"]) == (2, 0)
    manifest = parts(finished, tmp_path, range(1, 2))
    assert [shard.n_rows for shard in manifest.shards] == list(SIZES)
    assert (tmp_path / "shared/.config.yaml").exists()
    own = Artifact(str(tmp_path / "shared"))
    assert tables(own) == tables(finished.chain.artifact("embed"))
    assert manifest.metrics["agreement"] == finished.chain.artifact("embed").manifest().metrics["agreement"]


def test_a_process_that_comes_last_to_the_finish_finds_it_done(finished, tmp_path):
    parts(finished, tmp_path, range(0, 2))

    def overtaken(function, items, description, *, on_gpu):
        assert on_gpu, "shards pass a network"
        parts(finished, tmp_path, range(2, 3))  # another process finishes, and tidies the receipts away
        return local_map(function, items, description)

    manifest = parts(finished, tmp_path, range(0, 1), overtaken)
    assert manifest.n_rows == N_ROWS


def test_a_range_of_no_shards_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"--shard-range 3:5: names no shard; the source has 0 to 2"):
        parts(finished, tmp_path, range(3, 5))


def test_another_result_in_the_shared_output_is_refused(finished, tmp_path):
    Output(Artifact(str(tmp_path / "shared")), "embed", "another", {}, {}).begin()
    with pytest.raises(FingerprintMismatchError, match="another config"):
        parts(finished, tmp_path, range(0, 1))


# ---- carried columns --------------------------------------------------------------------------------------------


def carrying(finished, folder, table, carry, columns=("cluster",)):
    """Embed a table of N rows that has more columns."""
    folder.mkdir()
    pq.write_table(table.slice(0, 70), folder / "a.parquet", row_group_size=9)
    pq.write_table(table.slice(70), folder / "b.parquet")
    data = finished.config.data.model_copy(update={"path": str(folder), "id_column": "key", "carry": carry})
    models = Models(*(finished.chain.artifact(name) for name in MODELS))
    out = Output(Artifact(f"{folder}-output"), "embed", "print", {}, {})
    manifest = embed(Source.open(data), models, out, EmbedConfig(columns=columns, batch_rows=11))
    return manifest, pq.read_table(f"{folder}-output")


def wide_table():
    rows = np.arange(N_ROWS)
    vectors, labels = blobs(N_ROWS, DIM)
    return pa.table(
        {
            "vector": as_lists(vectors),
            "key": [f"row {row}" for row in rows],
            "label": labels,
            "text": [f"text {row}" if row % 3 else None for row in rows],
            "tags": [["a"] * (row % 4) for row in rows],
            "kind": pa.array([f"kind {row % 5}" for row in rows]).dictionary_encode(),
            "place": [{"x": float(row), "names": {"en": str(row)}} for row in rows],
            "price": pa.array([int(row) for row in rows], pa.int64()).cast(pa.decimal128(21, 2)),
            "seen": pa.array(1_700_000_000_000 + rows, pa.timestamp("ms", "Europe/Berlin")),
            "image": [bytes([row]) for row in rows],
            "code": as_lists(vectors[:, :2].astype(np.float16)),
        }
    )


def test_carried_columns_are_those_of_the_same_rows_whatever_they_hold(finished, tmp_path):
    table = wide_table()
    manifest, written = carrying(finished, tmp_path / "data", table, "all")
    names = [name for name in table.column_names if name not in ("vector", "key")]
    assert written.column_names == ["id", "cluster", *names]
    assert manifest.properties["carried"] == names
    assert written["id"].to_pylist() == table["key"].to_pylist()
    for name in names:
        assert written.schema.field(name).type == table.schema.field(name).type, name
        assert written[name].to_pylist() == table[name].to_pylist(), name


def test_a_carried_column_that_the_output_has_itself_is_refused(finished, tmp_path):
    table = wide_table().rename_columns({"text": "cluster"})
    with pytest.raises(ConfigError, match=r"the column 'cluster' of .*a\.parquet, but the output has one .* rename it"):
        carrying(finished, tmp_path / "data", table, ("cluster",))


def test_another_choice_of_carried_columns_runs_what_is_behind_the_stage_embed(finished, finished_run):
    first, second = (opened(finished_run, f"data.carry={names}").chain for names in ("[]", "[label]"))
    changed = [name for name in first.outputs if first.outputs[name].fingerprint != second.outputs[name].fingerprint]
    assert changed == ["embed", "exemplars"]


def test_scores_count_the_rows_that_have_labels(finished, tmp_path):
    vectors, labels = blobs(N_ROWS, DIM)
    lacking = np.arange(N_ROWS) % 3 == 0
    table = pa.table({"vector": as_lists(vectors), "key": np.arange(N_ROWS), "label": pa.array(labels, mask=lacking)})
    manifest, written = carrying(finished, tmp_path / "data", table, ())
    clusters = written["cluster"].to_numpy()
    assert len(clusters) == N_ROWS
    known = ~lacking
    assert manifest.metrics["agreement"]["ari"] == pytest.approx(adjusted_rand_score(labels[known], clusters[known]))


def test_without_any_label_there_are_no_scores(finished, tmp_path):
    columns = {"vector": as_lists(blobs(N_ROWS, DIM)[0]), "key": np.arange(N_ROWS)}
    table = pa.table({**columns, "label": pa.nulls(N_ROWS, pa.int64())})
    assert "agreement" not in carrying(finished, tmp_path / "data", table, ())[0].metrics
