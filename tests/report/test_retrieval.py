from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.orchestration.pipeline import Pipeline
from distspectral.report import retrieval
from distspectral.report.retrieval import Retrieved, retrieved
from tests.runs import write_metric_run
from tests.stages.chain import opened

HOSTILE = "{{7*7}}<script>alert(1)</script>"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, dict[str, Any]]:
    """A metric run whose class names want to be scripts."""
    folder = tmp_path_factory.mktemp("metric")
    path = write_metric_run(folder)
    for shard in sorted((folder / "data").glob("*.parquet")):
        table = pq.read_table(shard)
        names = pa.array([f"{label:02} {HOSTILE}" for label in table["label"].to_pylist()])
        pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", names), shard)
    pipeline = opened(path)
    return pipeline, pipeline.run()


def found_in(pipeline: Pipeline) -> Retrieved:
    config = pipeline.config.model_dump(mode="json")
    return retrieved(pipeline.chain.artifact("pack"), pipeline.chain.artifact("embed"), config)


def test_nearest_rows_are_those_of_the_largest_cosine_and_of_unseen_classes(finished: Any) -> None:
    pipeline, metrics = finished
    found = found_in(pipeline)
    files = sorted(Path(pipeline.chain.artifact("embed").path).glob("*.arrow"))
    table = pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files])
    vectors = np.stack(table["vector"].to_pylist())
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = table["label"].to_pylist()
    unseen = np.array([label > f"09 {HOSTILE}" for label in labels])
    assert len(found.queries) == retrieval.SHOWN
    for query in found.queries:
        row = table["id"].to_pylist().index(int(query.id))
        cosines = np.where(unseen, vectors @ vectors[row], -1)
        cosines[row] = -1
        assert [int(near.id) for near in query.nearest] == np.argsort(-cosines)[: retrieval.NEAREST].tolist()
        assert query.label.rstrip("…") == labels[row][: len(query.label) - 1]
    assert all(query.nearest[0].label != query.label for query in found.misses)
    right = metrics["evaluate"]["retrieval"]["recall_at"]["1"]
    assert 0 < right < 1
    assert len(found.misses) == min(retrieval.SHOWN, round((1 - right) * unseen.sum()))
    sizes = np.unique(np.array(labels)[unseen], return_counts=True)[1]
    assert found.chance == pytest.approx((sizes * (sizes - 1)).sum() / (unseen.sum() * (unseen.sum() - 1)))


def test_misses_are_of_as_many_classes_as_there_are() -> None:
    classes = np.array(["a"] * 30 + ["b", "a", "c", "c"])
    shown = retrieval._spread(np.arange(100, 134), classes)
    assert len(shown) == retrieval.SHOWN
    assert {100, 130, 132} <= set(shown.tolist())
    assert retrieval._spread(np.array([5]), np.array(["a"])).tolist() == [5]


def test_the_page_tells_the_scores_and_runs_no_script(finished: Any) -> None:
    pipeline, metrics = finished
    page = (Path(pipeline.config.root) / "report.html").read_text()
    assert "<script" not in page
    assert "script-src &#39;none&#39;" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{" in page, "a template in a name is not filled in"
    share = 100 * metrics["evaluate"]["retrieval"]["recall_at"]["1"]
    assert f"Of rows whose class training never saw, {share:.1f}%" in page
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "What does it find?",
        "Can I trust it?",
        "What next?",
        "How it was made",
    ]
    assert f"distspectral evaluate {pipeline.config.root} --retrieval" in page


def test_a_run_that_saw_all_classes_says_so(tmp_path: Path) -> None:
    dscl = {"n_components": 6, "rows_per_class": 5, "train_classes": 20}
    pipeline = opened(write_metric_run(tmp_path, dscl=dscl))
    pipeline.run()
    assert found_in(pipeline) == Retrieved()
    page = (tmp_path / "root" / "report.html").read_text()
    assert "There are no classes that training did not see" in page
    assert "Nothing is known: " in page
