from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distspectral.orchestration.pipeline import Pipeline
from distspectral.report.causes import causes, farthest_from_mean, left_out
from distspectral.report.data import Cause, RowSample
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors
from tests.runs import write_run
from tests.stages.chain import opened


@pytest.fixture(scope="module")
def pipeline(finished_run: Path) -> Pipeline:
    return opened(finished_run)


CALM = {"orphans": 0.0, "in_degree_skewness": 0.0, "small_components": [], "hub_rows": [1], "orphan_rows": []}


def found(pipeline: Pipeline, drawn: list[int], farthest: list[int], **metrics: Any) -> dict[str, list[Cause]]:
    vectors = pipeline.chain.artifact("pack")
    sample = RowSample(x=[0.0] * len(drawn), y=[0.0] * len(drawn), cluster=[0] * len(drawn), farthest=farthest)
    return causes({"graph": CALM} | metrics, "graph", (vectors, vectors.manifest()), sample, np.asarray(drawn))


def test_rows_are_named_by_their_ids_and_by_where_they_are_drawn(pipeline: Pipeline) -> None:
    ids = [str(one) for one in MappedVectors(pipeline.chain.artifact("pack")).ids().to_pylist()]
    ruled = {"orphans": 0.4, "in_degree_skewness": 9.0, "hub_rows": [7, 3], "orphan_rows": [0]}
    pieces = {"small_components": [{"size": 12, "rows": [2, 9]}]}
    told = found(pipeline, [2, 3, 9, 50], [3], graph=CALM | ruled | pieces)
    words = [(one.words, [(row.id, row.drawn) for row in one.rows]) for one in told["The graph"]]
    assert words == [
        ("Neighbours of most", [(ids[7], None), (ids[3], 1)]),
        ("Nobody's neighbours", [(ids[0], None)]),
        ("A piece of 12 rows", [(ids[2], 0), (ids[9], 2)]),
    ]
    assert [(row.id, row.drawn) for row in told["Outliers"][0].rows] == [(ids[50], 3)]


def test_a_calm_run_names_no_row(pipeline: Pipeline) -> None:
    assert found(pipeline, [], []) == {}


def test_rows_far_from_all_others_are_named_and_not_looked_for_in_vectors_too_large(pipeline: Pipeline) -> None:
    rows = np.zeros((9000, 2), np.float32)
    rows[[4200, 17, 8999]] = [[9, 0], [-30, 0], [0, 8]]
    assert farthest_from_mean(ArrayVectors(rows))[:3] == [17, 4200, 8999]
    told = found(pipeline, [], [], pack={"times_as_far_as_usual": 99.0})
    assert len(told["The rows as they were read"][0].rows) == 5


def test_rows_in_quarantine_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    shard = sorted((tmp_path / "data").glob("*.parquet"))[0]
    table = pq.read_table(shard)
    rows = table["vector"].to_pylist()
    rows[4][1] = float("nan")
    vectors = pa.array(rows, table.schema.field("vector").type)
    pq.write_table(table.set_column(table.schema.get_field_index("vector"), "vector", vectors), shard)
    text = run.read_text().replace("id_column: id", "id_column: id\n  on_bad_rows: quarantine")
    run.write_text(text)
    pipeline = opened(run)
    pipeline.stage("pack")
    packed = pipeline.chain.artifact("pack")
    assert [(one.words, [(row.id, row.drawn) for row in one.rows]) for one in left_out(packed, packed.manifest())] == [
        ("Left out", [(str(table["id"][4].as_py()), None)])
    ]
