from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.orchestration.pipeline import Pipeline
from distspectral.report.data import RowSample
from distspectral.report.rows import Most, Square, carried_cells, row_sample
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from tests.datasets import blobs
from tests.runs import DIM, N_ROWS
from tests.stages.chain import opened


@pytest.fixture(scope="module")
def pipeline(finished_run: Path) -> Pipeline:
    return opened(finished_run)


@pytest.fixture(scope="module")
def output(pipeline: Pipeline) -> pa.Table:
    return whole(Path(pipeline.chain.artifact("embed").path))


def whole(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])


def sample(pipeline: Pipeline, seed: int = 0, **most: int) -> tuple[RowSample, Any]:
    artifact = pipeline.chain.artifact("embed")
    return row_sample(pipeline.chain.artifact("pack"), artifact, artifact.manifest(), seed, Most(**most))


def rewritten(pipeline: Pipeline, table: pa.Table, folder: Path) -> tuple[Artifact, Manifest]:
    """Write an output with the rows of the table in place of the run's."""
    manifest, first = pipeline.chain.artifact("embed").manifest(), 0
    for shard in manifest.shards:
        pq.write_table(table.slice(first, shard.n_rows), folder / shard.name)
        first += shard.n_rows
    return Artifact(str(folder)), manifest


def test_a_small_output_is_shown_whole_without_the_constant_column(
    pipeline: Pipeline, output: pa.Table, tmp_path: Path
) -> None:
    artifact, manifest = rewritten(pipeline, output.drop_columns(["x", "y", "is_outlier"]), tmp_path)
    shown, rows = row_sample(pipeline.chain.artifact("pack"), artifact, manifest, 0)
    embedding = np.stack(output["embedding"].to_pylist())
    assert shown.n_rows == N_ROWS
    assert shown.place == "eigenfunctions"
    assert np.array_equal(shown.x, embedding[:, 1])
    assert np.array_equal(shown.y, embedding[:, 2])
    assert shown.cluster == output["cluster"].to_pylist()
    assert shown.leaf == output["leaf"].to_pylist()
    assert shown.labels == blobs(N_ROWS, DIM)[1].tolist()
    assert shown.ids == [str(one) for one in output["id"].to_pylist()]
    assert shown.density is shown.outlier is None
    assert rows.tolist() == list(range(N_ROWS))


def test_a_large_output_is_sampled_with_labels_of_the_same_rows(pipeline: Pipeline, output: pa.Table) -> None:
    most = {"drawn": 20, "counted": 60, "shards": 2}
    shown, rows = sample(pipeline, **most)
    assert shown.n_rows == len(set(rows.tolist())) == 20
    assert shown == sample(pipeline, **most)[0]
    assert shown != sample(pipeline, seed=1, **most)[0]
    assert shown.ids == [str(one) for one in output["id"].take(rows).to_pylist()]
    assert shown.labels == blobs(N_ROWS, DIM)[1][rows].tolist()
    assert shown.cluster == output["cluster"].take(rows).to_pylist()
    assert shown.density is not None
    assert shown.density.n_rows == sum(shown.density.counts) == 60


@pytest.fixture
def mapped(pipeline: Pipeline, output: pa.Table, tmp_path: Path) -> tuple[Artifact, Manifest]:
    """An output with a map, outliers and carried columns, one of them called as ours would be."""
    row, table = np.arange(N_ROWS), output.drop_columns(["x", "y", "is_outlier"])
    added = {
        "x": row.astype(np.float32),
        "y": -row.astype(np.float32),
        "is_outlier": row % 7 == 0,
        "text": row.astype(str),
    }
    for name, column in added.items():
        table = table.append_column(name, pa.array(column))
    return rewritten(pipeline, table, tmp_path)


def test_a_map_is_taken_where_the_output_has_one(pipeline: Pipeline, mapped: tuple[Artifact, Manifest]) -> None:
    artifact, manifest = mapped
    with_text = manifest.model_copy(update={"properties": manifest.properties | {"carried": ["text"]}})
    shown, rows = row_sample(pipeline.chain.artifact("pack"), artifact, with_text, 0, Most(drawn=30))
    assert shown.place == "map"
    assert shown.x == rows.tolist()
    assert shown.y == (-rows).tolist()
    assert shown.outlier == (rows % 7 == 0).tolist()
    assert shown.columns == {"text": [str(row) for row in rows]}


def test_columns_of_the_source_that_are_called_like_a_map_are_none(
    pipeline: Pipeline, mapped: tuple[Artifact, Manifest]
) -> None:
    artifact, manifest = mapped
    carrying = manifest.model_copy(update={"properties": manifest.properties | {"carried": ["x", "y", "is_outlier"]}})
    shown, rows = row_sample(pipeline.chain.artifact("pack"), artifact, carrying, 0)
    assert shown.place == "eigenfunctions"
    assert shown.outlier is None
    assert shown.columns["x"] == rows.tolist()


def test_the_farthest_outliers_are_known_by_their_places(pipeline: Pipeline, output: pa.Table, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    distance, is_outlier = rng.random(N_ROWS), np.arange(N_ROWS) % 3 == 0
    table = output
    for name, column in (("distance", distance.astype(np.float32)), ("is_outlier", is_outlier)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    artifact, manifest = rewritten(pipeline, table, tmp_path)
    shown, _ = row_sample(pipeline.chain.artifact("pack"), artifact, manifest, 0)
    assert shown.farthest == np.argsort(-np.where(is_outlier, distance, -1))[:5].tolist()


def test_a_map_keeps_its_unit_and_eigenfunctions_stand_by_rank() -> None:
    x, y = np.array([0.0, 10.0, 1e-3]), np.array([1.0, 2.0, 1.5])
    on_map = Square(x, y, "map").places(x, y)
    assert on_map.min() >= 0
    assert on_map.max() <= 1
    assert np.ptp(on_map[:, 1]) / np.ptp(on_map[:, 0]) == pytest.approx(0.1, rel=0.01)
    ranked = Square(x, y, "eigenfunctions").places(x, y)
    assert np.argsort(ranked[:, 0]).tolist() == [0, 2, 1]
    assert np.diff(np.sort(ranked[:, 0])) == pytest.approx([ranked[2, 0] - ranked[0, 0]] * 2)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        (pa.array([1, None, 3]), [1.0, None, 3.0]),
        (pa.array([1.5, float("nan"), float("inf")]), [1.5, None, None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["x" * 1000]), ["x" * 300]),
        (pa.array([[1, 2]]), None),
        (pa.array([b"\xff\xfe"]), None),
    ],
)
def test_carried_columns_are_numbers_or_text(column: pa.Array, cells: list[Any] | None) -> None:
    assert carried_cells(pa.chunked_array([column])) == cells
