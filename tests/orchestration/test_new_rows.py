from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.errors import DirectoryHeldError, FingerprintMismatchError, ShardWidthError, UnknownColumnError
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.new_rows import embed_new_rows, embed_new_shards
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.opened_run import OpenedRun, finished_run
from distspectral.orchestration.pipeline import Pipeline, run
from distspectral.serving.predictor import load_predictor
from distspectral.serving.service import Service
from distspectral.stages.stage import Stage, Unfinished
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source
from tests.datasets import blobs
from tests.orchestration.recorder import Recorder, run_local
from tests.runs import DIM, N_ROWS, copied_run, moved, write_metric_run, write_run


@pytest.fixture
def own(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run of one's own; the data, and so the fingerprints, stay those of ``finished_run``."""
    return copied_run(finished_run, tmp_path)


def standing(path: Path, *overrides: str) -> OpenedRun:
    return finished_run(load_config(path, overrides), LocalEngine(), Recorder(), as_told=True)


def test_an_output_that_another_process_fills_is_refused(own: Path, tmp_path: Path) -> None:
    source, place = other_rows(standing(own), load_config(own).data.path), str(tmp_path / "elsewhere")
    with Hold(Artifact(place), "run `other`"), pytest.raises(DirectoryHeldError, match="elsewhere: is held by run"):
        embed_new_rows(standing(own), source, place)
    assert embed_new_rows(standing(own), source, place).n_rows == N_ROWS


def test_the_same_rows_embedded_as_other_rows_get_the_same_coordinates(own: Path, tmp_path: Path) -> None:
    trained = standing(own)
    shard = Source.open(trained.config.data).shards[1]
    rows = np.stack(pq.read_table(shard.uri)["vector"].to_pylist()).astype(np.float32)
    write_vectors(
        str(tmp_path / "other"), rows, labels=np.zeros(len(rows), np.int64), ids=np.arange(900, 900 + len(rows))
    )
    source = Source.open(trained.config.data.model_copy(update={"path": str(tmp_path / "other")}))
    manifest = embed_new_rows(trained, source, str(tmp_path / "embedded"))
    assert manifest.n_rows == len(rows) == 30
    other = pq.read_table(tmp_path / "embedded" / "part-00000.parquet")
    known = pq.read_table(own.parent / "root/output/part-00001.parquet")
    assert other["id"].to_pylist() == list(range(900, 930))
    assert other["cluster"] == known["cluster"]
    np.testing.assert_allclose(other["embedding"].to_pylist(), known["embedding"].to_pylist(), rtol=1e-5, atol=1e-6)
    again = standing(own)
    embed_new_rows(again, source, str(tmp_path / "embedded"))
    assert again.observer.up_to_date == ["embed"]  # type: ignore[attr-defined]


def other_rows(trained: OpenedRun, path: Path | str) -> Source:
    return Source.open(trained.config.data.model_copy(update={"path": str(path)}))


def numbered_rows(folder: Path, first_id: int, shift: float = 0.0) -> None:
    vectors, labels = blobs(N_ROWS, DIM)
    ids = np.arange(first_id, first_id + N_ROWS)
    write_vectors(str(folder), vectors + np.float32(shift), labels=labels, ids=ids)


def test_a_folder_that_grew_has_only_its_new_shards_embedded(own: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "other", tmp_path / "embedded"
    numbered_rows(folder / "b", 1000)
    embed_new_rows(standing(own), other_rows(standing(own), folder), str(out))
    before = pq.read_table(out / "part-00000.parquet")
    numbered_rows(folder / "a", 2000, shift=8.0)
    manifest = embed_new_rows(standing(own), other_rows(standing(own), folder), str(out))
    assert manifest.metrics["embedded_shards"] == 1
    assert manifest.metrics["drift"]["drifted"]  # of the new rows, not of those before
    assert [shard.n_rows for shard in manifest.shards] == [N_ROWS, N_ROWS]
    assert pq.read_table(out / "part-00001.parquet") == before
    assert pq.read_table(out / "part-00000.parquet")["id"].to_pylist() == list(range(2000, 2000 + N_ROWS))
    assert manifest.metrics["agreement"].keys() == {"acc", "nmi", "ari"}


def test_a_model_embeds_although_the_rows_it_was_trained_on_have_changed(own: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(str(load_config(own).data.path), folder)
    numbered_rows(folder / "new", 5000)
    trained = standing(own, f"data.path={folder}")
    manifest = embed_new_rows(trained, other_rows(trained, folder), str(tmp_path / "embedded"))
    assert manifest.n_rows == 2 * N_ROWS
    grown = load_config(own, [f"data.path={folder}"])
    with pytest.raises(FingerprintMismatchError):
        Pipeline(grown, Source.open(grown.data), LocalEngine(), Recorder()).stage("embed")


@pytest.mark.parametrize("shards", [None, range(1)])
def test_rows_of_another_width_are_refused_before_a_cluster_is_asked_for(
    own: Path, tmp_path: Path, shards: range | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: LocalEngine, stages: Sequence[Stage], n_values: float = 0) -> None:
        raise AssertionError(f"a cluster was asked for: {stages}")

    monkeypatch.setattr(LocalEngine, "start", start)
    trained, out = standing(own), str(tmp_path / "embedded")
    write_vectors(str(tmp_path / "wide"), np.ones((5, DIM + 1), np.float32), labels=np.zeros(5, np.int64))
    source = other_rows(trained, tmp_path / "wide")
    embed = embed_new_rows if shards is None else functools.partial(embed_new_shards, shards=shards)
    found = f"wide/.*: rows have width {DIM + 1}, the run .*root was trained on {DIM}"
    with pytest.raises(ShardWidthError, match=found):
        embed(trained, source, out)
    assert not Path(out).exists()


def write_wide(folder: Path, names: Sequence[str]) -> np.ndarray[Any, Any]:
    """Write rows with a column for each feature, and an id."""
    rows = blobs(N_ROWS, DIM)[0]
    folder.mkdir()
    columns = {name: rows[:, number] for number, name in enumerate(names)}
    pq.write_table(pa.table({"id": np.arange(N_ROWS), **columns}), folder / "a.parquet")
    return rows


def test_columns_of_other_names_are_refused_unless_they_are_listed_in_order(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(DIM)]
    rows = write_wide(tmp_path / "wide", names)
    path = write_run(tmp_path, data={"path": str(tmp_path / "wide"), "column": "x*", "id_column": "id"})
    run_local(path)
    vectors = tmp_path / "root/vectors/.manifest.json"
    assert json.loads(vectors.read_text())["properties"]["features"] == names
    others = [*names[:2], "x50", *names[3:]]  # sorts behind x4
    write_wide(tmp_path / "others", others)
    trained, embedded = standing(path), iter(range(9))

    def embed(folder: str, **data: Any) -> list[int]:
        config, out = trained.config.data, tmp_path / f"embedded-{next(embedded)}"
        source = Source.open(config.model_copy(update={"path": str(tmp_path / folder), **data}))
        embed_new_rows(trained, source, str(out))
        found: list[int] = pq.read_table(out / "part-00000.parquet")["cluster"].to_pylist()
        return found

    refused = "others/.*: feature 2 is column 'x3', the run .*root was trained on 'x2' there; rename .*data.column="
    with pytest.raises(UnknownColumnError, match=refused):
        embed("others")
    with pytest.raises(UnknownColumnError, match="feature 2 is column 'x3'"):
        embed_new_shards(trained, other_rows(trained, tmp_path / "others"), str(tmp_path / "part"), range(1))
    with pytest.raises(UnknownColumnError, match="feature 0 is column 'x1'"):
        embed("wide", column=("x1", "x0", *names[2:]))
    known = embed("wide")
    assert embed("others", column=tuple(others)) == known
    write_vectors(str(tmp_path / "one"), rows, ids=np.arange(N_ROWS))
    assert embed("one", column="vector") == known
    manifest = json.loads(vectors.read_text())
    del manifest["properties"]["features"]  # as those of before have none
    vectors.write_text(json.dumps(manifest))
    embed("others")


def test_rows_like_those_trained_on_have_not_drifted_and_others_have(own: Path, tmp_path: Path) -> None:
    trained = standing(own)
    numbered_rows(tmp_path / "same", 1000)
    numbered_rows(tmp_path / "shifted", 1000, shift=8.0)
    drifts = [
        embed_new_rows(trained, other_rows(trained, tmp_path / name), str(tmp_path / f"of-{name}")).metrics["drift"]
        for name in ("same", "shifted")
    ]
    assert [drift["drifted"] for drift in drifts] == [False, True]
    assert drifts[0]["n_rows"] == N_ROWS
    assert "drift" not in trained.chain.artifact("embed").manifest().metrics
    silent = standing(own, "embed.drift_rows=0")
    manifest = embed_new_rows(silent, other_rows(silent, tmp_path / "shifted"), str(tmp_path / "unasked"))
    assert "drift" not in manifest.metrics


def test_other_rows_of_1970s_seconds_are_embedded_as_those_trained_on(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    moved(tmp_path / "data", 1.7e9)
    run_local(path)
    trained = standing(path, "data.on_bad_rows=quarantine")
    vectors = np.vstack([blobs(N_ROWS, DIM)[0][:60].astype(np.float64) + 1.7e9, np.full((1, DIM), 1e30)])
    for name, shift in (("same", 0.0), ("later", 1e6)):
        write_vectors(str(tmp_path / name), vectors + shift, labels=np.zeros(61, np.int64))
    same, later = (
        embed_new_rows(trained, other_rows(trained, tmp_path / name), str(tmp_path / f"of-{name}"))
        for name in ("same", "later")
    )
    assert (same.n_rows, same.metrics["quarantine"]["reasons"]) == (60, {"beyond float32": 1})
    assert (same.metrics["drift"]["drifted"], later.metrics["drift"]["drifted"]) == (False, True)
    known = [
        one
        for path in sorted((tmp_path / "root/output").glob("*.parquet"))
        for one in pq.read_table(path)["embedding"].to_pylist()
    ][:60]
    found = pq.read_table(tmp_path / "of-same/part-00000.parquet")["embedding"].to_pylist()
    np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-6)


def test_a_metric_sees_other_rows_in_the_frame_of_those_it_learned_from(tmp_path: Path) -> None:
    path = write_metric_run(tmp_path)
    rows = moved(tmp_path / "data", 1.7e9)
    run(load_config(path), LocalEngine(), SilentObserver())
    service = Service(load_predictor(Artifact(str(tmp_path / "root"))), 300, "cpu")
    other = rows + np.arange(12) * 10  # whose own medians are others
    (known,) = service.answers([service.predictor.frame.framed(other)])
    write_vectors(str(tmp_path / "other"), other, labels=np.zeros(300, np.int64))
    trained = standing(path)
    embed_new_rows(trained, other_rows(trained, tmp_path / "other"), str(tmp_path / "of-other"))
    found = MappedVectors(Artifact(str(tmp_path / "of-other/embedding"))).block(0, 300)
    np.testing.assert_allclose(found, known["embedding"], rtol=1e-4, atol=1e-5)


def test_parts_of_other_rows_are_compared_with_the_training_rows(own: Path, tmp_path: Path) -> None:
    numbered_rows(tmp_path / "other/a", 1000, shift=8.0)
    numbered_rows(tmp_path / "other/b", 2000)
    source = other_rows(standing(own), tmp_path / "other")
    first = embed_new_shards(standing(own), source, str(tmp_path / "out"), range(0, 1))
    assert isinstance(first, Unfinished)
    assert first.metrics["drift"]["drifted"]
    last = embed_new_shards(standing(own), source, str(tmp_path / "out"), range(1, 2))
    assert not isinstance(last, Unfinished)
    assert not last.metrics["drift"]["drifted"]
