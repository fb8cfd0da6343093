from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from distspectral.errors import SourceError, UnknownColumnError
from distspectral.report.agreement import Agreement, agreement, write_picture
from distspectral.storage.rows.vectors import MappedVectors
from tests.runs import N_ROWS
from tests.stages.chain import pipeline_upto


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return pipeline_upto(tmp_path_factory.mktemp("run"), "embed")


@pytest.fixture(scope="module")
def clusters(finished):
    output = finished.chain.artifact("embed")
    tables = [pq.read_table(output.file_path(shard.name)) for shard in output.manifest().shards]
    return np.concatenate([table["cluster"].to_numpy() for table in tables])


def labels_of(finished):
    return MappedVectors(finished.chain.artifact("pack")).labels().to_numpy()


@pytest.mark.parametrize("extension", ["parquet", "arrow", "csv", "folder"])
def test_labels_are_joined_by_id_in_any_order_and_format(finished, clusters, tmp_path, extension):
    labels, order = labels_of(finished), np.random.default_rng(0).permutation(N_ROWS)
    table = pa.table({"id": order, "label": np.array([f"class {label}" for label in labels])[order]})
    path = tmp_path / f"labels.{extension}"
    if extension == "csv":
        pa.csv.write_csv(table, path)
    elif extension == "arrow":
        pa.feather.write_feather(table, path, compression="uncompressed")
    elif extension == "folder":
        path.mkdir()
        for part in range(2):
            pq.write_table(table.slice(60 * part, 60), path / f"{part}.parquet")
    else:
        pq.write_table(table, path)
    found = agreement(finished.chain.root, str(path), "id", "label")
    assert found.classes == ("class 0", "class 1", "class 2")
    scores = found.scores()
    assert scores["n_rows"] == N_ROWS
    assert scores["ari"] == pytest.approx(adjusted_rand_score(labels, clusters))
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))
    np.testing.assert_array_equal(found.counts, agreement(finished.chain.root, None, "id", "label").counts)


def test_rows_without_a_label_are_counted_and_left_out(finished, clusters, tmp_path):
    pq.write_table(pa.table({"row": np.arange(40, 110), "kind": np.zeros(70, int)}), tmp_path / "some.parquet")
    found = agreement(finished.chain.artifact("embed"), str(tmp_path / "some.parquet"), "row", "kind")
    assert found.n_unlabeled == N_ROWS - 70
    np.testing.assert_array_equal(found.counts[0], np.bincount(clusters[40:110], minlength=3))


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"id": [1, 1], "label": [0, 1]}, SourceError, "holds an id twice"),
        ({"id": [900, 901], "label": [0, 1]}, SourceError, "labels none of the run's 120 rows"),
        ({"id": ["doc-1", "doc-2"], "label": [0, 1]}, SourceError, "labels none of the run's 120 rows"),
        ({"key": [1, 2], "label": [0, 1]}, UnknownColumnError, "no column 'id', only key, label"),
    ],
)
def test_labels_that_do_not_fit_are_named(finished, tmp_path, columns, error, message):
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(error, match=message):
        agreement(finished.chain.root, str(tmp_path / "bad.parquet"), "id", "label")


def test_ids_of_another_type_are_equal_if_they_read_alike(finished, tmp_path):
    pq.write_table(pa.table({"id": ["7", "doc-8"], "label": [0, 1]}), tmp_path / "labels.parquet")
    found = agreement(finished.chain.root, str(tmp_path / "labels.parquet"), "id", "label")
    assert (int(found.counts.sum()), found.n_unlabeled) == (1, N_ROWS - 1)


def test_files_that_are_none_are_named(finished, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    for path in (tmp_path / "bad.parquet", tmp_path / "absent.parquet"):
        with pytest.raises(SourceError, match=path.name):
            agreement(finished.chain.root, str(path), "id", "label")


def test_clusters_are_matched_to_classes_and_described():
    found = Agreement(np.array([[0, 9, 1, 0], [5, 0, 2, 0]]), ("a", "b"))
    np.testing.assert_array_equal(found.matched_clusters(), [1, 0, 2, 3])
    assert [one["label"] for one in found.by_cluster()] == ["b", "a", "b", ""]
    assert [one["share"] for one in found.by_cluster()] == [1, 1, pytest.approx(2 / 3), 0]


def test_the_picture_stands_alone_and_escapes_what_comes_from_the_data(finished):
    found = Agreement(np.array([[40, 0], [1, 79]]), ("<script>alert(1)</script>", "b & c"))
    place = write_picture(finished.chain.root, found)
    svg = finished.chain.root.read_bytes("confusion.svg").decode()
    assert place.endswith("root/confusion.svg")
    assert svg.startswith("<svg width=")
    assert "var(" not in svg, "other programs know no variables"
    assert "<script>" not in svg
    assert "79" in svg


def test_categories_are_ids_too(finished, tmp_path):
    ids = pa.array([str(row) for row in range(N_ROWS)]).dictionary_encode()
    pq.write_table(pa.table({"id": ids, "label": labels_of(finished)}), tmp_path / "labels.parquet")
    found = agreement(finished.chain.root, str(tmp_path / "labels.parquet"), "id", "label")
    np.testing.assert_array_equal(found.counts, agreement(finished.chain.root, None, "id", "label").counts)
