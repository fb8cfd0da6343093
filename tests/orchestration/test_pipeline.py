from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.errors import (
    DamagedArtifactError,
    DirectoryHeldError,
    FingerprintMismatchError,
    MissingArtifactError,
    NonFiniteRowError,
    ShardWidthError,
    UnknownColumnError,
)
from distspectral.mapping import Mapper
from distspectral.models.state import read_state
from distspectral.orchestration.engine import LocalEngine, RayEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline, run
from distspectral.serving.predictor import load_predictor
from distspectral.serving.service import Service
from distspectral.stages.stage import Stage, Unfinished
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source
from tests.datasets import blobs
from tests.runs import (
    AFTER_GRAPH,
    CHAIN,
    DIM,
    LEARNED,
    N_ROWS,
    copied_run,
    moved,
    write_drowned_run,
    write_metric_run,
    write_run,
)


class Recorder:
    """Keeps what the pipeline says."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.up_to_date: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self.ritz_sums: list[float] = []

    def started(self, stage: str) -> None:
        self.worked.append(stage)

    def skipped(self, stage: str) -> None:
        self.up_to_date.append(stage)

    def finished(self, stage: str, seconds: float) -> None:
        assert seconds > 0

    def progress(self, description: str, done: int, total: int) -> None:
        self.steps.append((description, done, total))

    def window(self, record: dict[str, Any]) -> None:
        if "ritz_sum" in record:
            self.ritz_sums.append(record["ritz_sum"])


class StoppingEngine(LocalEngine):
    """Dies after some items, as a killed driver would."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items
        self.handed_out: list[Any] = []

    def mapper(self, stage: Stage) -> Mapper:
        if stage.workers != "actors":
            return super().mapper(stage)

        def mapped(function: Any, items: Any, description: str, *, on_gpu: bool = False) -> Iterator[Any]:
            for item in items:
                if len(self.handed_out) == self.n_items:
                    raise KeyboardInterrupt
                self.handed_out.append(item)
                yield function(item)

        return mapped


class IdleEngine(LocalEngine):
    """Must never be asked to work."""

    def start(self, stages: Sequence[Stage], n_values: float = 0) -> None:
        raise AssertionError("a stage has work although all are current")


def run_local(path: Path, *overrides: str) -> tuple[dict[str, Any], Recorder]:
    recorder = Recorder()
    return run(load_config(path, overrides), LocalEngine(), recorder), recorder


@pytest.fixture
def finished(finished_run: Path) -> Path:
    return finished_run


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own to spoil; the data, and so the fingerprints, stay those of ``finished``."""
    return copied_run(finished, tmp_path)


def test_metrics_and_report_stand_at_the_root(finished: Path) -> None:
    root = finished.parent / "root"
    metrics = json.loads((root / "metrics.json").read_text())
    assert (metrics["n_rows"], metrics["dim"]) == (N_ROWS, DIM)
    assert list(metrics["seconds"]) == list(CHAIN)
    assert all(seconds > 0 for seconds in metrics["seconds"].values())
    assert metrics["peak_rss_bytes"] > 10 << 20
    hubs = {"in_degree_max", "in_degree_skewness", "orphans", "hub_rows", "orphan_rows", "small_components"}
    assert set(metrics["graph"]) == {"k", "components", "largest_component_share"} | hubs
    assert metrics["neighbors"] == {"surplus_duplicates": 0, "metric": "l2"}
    assert metrics["train"]["steps"] == 40
    assert metrics["train"]["edges_per_second"] > 0
    assert len(metrics["train"]["ritz_values"]) == 6
    assert set(metrics["embed"]["agreement"]) == {"acc", "nmi", "ari"}
    assert "<svg" in (root / "report.html").read_text()


def test_what_only_metrics_and_report_tell_is_told_anew(own: Path) -> None:
    root = own.parent / "root"
    metrics, recorder = run_local(own, "name=renamed", "ray.workers=2")
    assert recorder.worked == []
    assert metrics["name"] == json.loads((root / "metrics.json").read_text())["name"] == "renamed"
    assert "renamed" in (root / "report.html").read_text()
    assert yaml.safe_load((root / "config.yaml").read_text())["name"] == "renamed"
    before = (root / "report.html").stat().st_mtime_ns
    run_local(own, "name=renamed", "ray.workers=1")
    assert (root / "report.html").stat().st_mtime_ns == before, "nothing that it tells has changed"


def test_a_trial_decides_on_the_stages_after_it(tmp_path: Path) -> None:
    path = write_drowned_run(tmp_path)
    metrics, recorder = run_local(path)
    assert metrics["trial"]["space"] == "components"
    assert recorder.worked[:5] == ["pack", "trial", "pca", "codes", "neighbors"]
    assert list(metrics["seconds"]) == recorder.worked
    assert metrics["neighbors"]["metric"] == metrics["trial"]["metric"]
    assert "among principal components" in (tmp_path / "root/report.html").read_text()

    again, recorder = run_local(path)
    assert (again, recorder.worked) == (metrics, [])
    config = load_config(path)
    source = Source.open(config.data)
    finished = Pipeline.finished(config, IdleEngine(), SilentObserver())
    assert "pca" in finished.chain.outputs
    embedded = Pipeline.finished(config, LocalEngine(), SilentObserver()).embed_other(source, str(tmp_path / "new"))
    assert embedded.n_rows == source.n_rows

    for folder in ("trial", "neighbors"):
        shutil.rmtree(tmp_path / "root" / folder)
    _, recorder = run_local(path)  # decides alike, so what stands is what it made before
    assert recorder.worked == ["trial", "neighbors"]

    follower = ("root=" + str(tmp_path / "next"), "start_from=" + str(tmp_path / "root"), "graph.seed=7")
    assert run_local(path, *follower)[0]["trial"] == metrics["trial"]


def test_a_killed_trial_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_drowned_run(tmp_path)
    monkeypatch.setattr("distspectral.stages.trial.tried", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_local(path)
    monkeypatch.undo()
    pipeline = Pipeline(load_config(path), Source.open(load_config(path).data), LocalEngine(), SilentObserver())
    with pytest.raises(MissingArtifactError, match="trial"):
        pipeline.stage("neighbors")
    pipeline.stage("trial")
    recorder = Recorder()
    run(load_config(path), LocalEngine(), recorder)
    assert recorder.up_to_date[:2] == ["pack", "trial"]
    assert recorder.worked[0] == "pca"


def test_every_row_is_in_the_output_once_and_in_order(finished: Path) -> None:
    ids = [pq.read_table(file)["id"].to_numpy() for file in sorted((finished.parent / "root/output").glob("*.parquet"))]
    assert [len(part) for part in ids] == [50, 30, 40]
    assert np.array_equal(np.concatenate(ids), np.arange(N_ROWS))


def test_a_second_run_skips_everything_and_tells_the_same(finished: Path) -> None:
    root = finished.parent / "root"
    before = (root / "metrics.json").read_bytes(), (root / "report.html").read_bytes()
    recorder = Recorder()
    metrics = run(load_config(finished), IdleEngine(), recorder)
    assert recorder.up_to_date == list(CHAIN)
    assert recorder.worked == []
    assert metrics == json.loads(before[0])
    assert ((root / "metrics.json").read_bytes(), (root / "report.html").read_bytes()) == before


def test_a_second_run_neither_imports_nor_starts_ray(finished: Path) -> None:
    code = (
        "import sys; from distspectral.config import load_config;"
        "from distspectral.orchestration.engine import make_engine;"
        "from distspectral.orchestration.observer import SilentObserver;"
        "from distspectral.orchestration.pipeline import run;"
        f"config = load_config({str(finished)!r}); assert config.ray.enabled;"
        "run(config, make_engine(config.ray), SilentObserver());"
        "print(sorted({'ray', 'faiss', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_metrics_file_is_written_again_with_the_seconds_of_then(own: Path) -> None:
    file = own.parent / "root/metrics.json"
    before = json.loads(file.read_text())
    file.unlink()
    metrics, recorder = run_local(own)
    assert recorder.worked == []
    assert metrics == before == json.loads(file.read_text())


def test_only_stages_behind_a_change_run_again(own: Path) -> None:
    metrics, recorder = run_local(own, "cluster.n_clusters=4")
    assert recorder.up_to_date == ["pack", "neighbors", "graph", "train", "polish", "distill", "calibrate", "map"]
    assert recorder.worked == ["cluster", "tree", "embed", "exemplars"]
    assert metrics["cluster"]["n_clusters"] == 4


def test_a_damaged_output_is_made_again(own: Path) -> None:
    (own.parent / "root/output/part-00001.parquet").write_bytes(b"short")
    _, recorder = run_local(own)
    assert recorder.worked == ["embed"]


def without(key: str) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(
        {name: value for name, value in json.loads(content).items() if name != key}
    ).encode()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[:-40],
    "empty": lambda content: b"",
    "of zeros": lambda content: bytes(len(content)),
    "a list": lambda content: b"[]",
    "without shards": without("shards"),
    "without its fingerprint": without("fingerprint"),
    "of another format": lambda content: json.dumps(json.loads(content) | {"format_version": 99}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stage_whose_manifest_is_damaged_runs_again(own: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = own.parent / "root/clusters/.manifest.json"
    before = json.loads(path.read_text())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    pipeline = opened(own)
    with pytest.raises(DamagedArtifactError, match=r"clusters/\.manifest\.json: "):
        pipeline.report()
    pipeline.run()
    assert pipeline.observer.worked == ["cluster"]  # type: ignore[attr-defined]
    (line,) = [record.message for record in caplog.records if "runs again" in record.message]
    assert line.startswith(f"{path}: ")
    assert line.endswith("; the stage `cluster` runs again")
    after = json.loads(path.read_text())
    assert {key: after[key] for key in ("fingerprint", "properties")} == {
        key: before[key] for key in ("fingerprint", "properties")
    }


@pytest.mark.parametrize("name", ["output", "vectors", "training"])
def test_any_stage_alone_runs_again_where_its_manifest_is_damaged(own: Path, name: str) -> None:
    stage = {"output": "embed", "vectors": "pack", "training": "train"}[name]
    path = own.parent / f"root/{name}/.manifest.json"
    path.write_bytes(path.read_bytes()[:-40])
    pipeline = opened(own, "train.max_steps=40")
    pipeline.stage(stage)
    assert pipeline.observer.worked == [stage]  # type: ignore[attr-defined]


def test_damaged_codes_do_not_stop_the_stages_before_them(tmp_path: Path) -> None:
    path = write_run(tmp_path, **LEARNED)
    opened(path).run()
    for folder in ("codes", "vectors"):
        (tmp_path / f"root/{folder}/.manifest.json").write_text("{")
    again = opened(path)
    again.run()
    assert again.observer.worked == ["pack", "codes"]  # type: ignore[attr-defined]


def test_a_run_whose_start_was_replaced_trains_again(own: Path, tmp_path: Path) -> None:
    later = write_run(tmp_path / "later", start_from=str(own.parent / "root"))
    run_local(later)
    run_local(own, "affinity.kind=uniform")
    _, recorder = run_local(later)
    assert recorder.worked == list(AFTER_GRAPH)
    _, recorder = run_local(later)
    assert recorder.worked == []


def test_a_root_that_another_process_writes_is_refused_with_who_does(own: Path) -> None:
    root = own.parent / "root"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with Hold(Artifact(str(root)), "run `other`"):
        metrics, _ = run_local(own)  # all is there: nothing is written
        assert metrics == json.loads(before[root / "metrics.json"])
        for refused in (
            lambda: run_local(own, "cluster.n_clusters=4"),
            lambda: opened(own, "cluster.n_clusters=4").stage("cluster"),
            lambda: opened(own).report(),
            lambda: opened(own, "embed.n_nearest=2").embed_part(range(1)),
        ):
            with pytest.raises(DirectoryHeldError, match=r"root: is held by run `other` \(process \d+ of "):
                refused()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_output_that_another_process_fills_is_refused(own: Path, tmp_path: Path) -> None:
    pipeline = opened(own)
    place = str(tmp_path / "elsewhere")
    with Hold(Artifact(place), "run `other`"), pytest.raises(DirectoryHeldError, match="elsewhere: is held by run"):
        pipeline.embed_other(pipeline.source, place)
    assert opened(own).embed_other(pipeline.source, place).n_rows == N_ROWS


def test_an_interrupted_embedding_goes_on_with_the_shards_it_lacks(own: Path) -> None:
    output = own.parent / "root/output"
    before = [pq.read_table(file) for file in sorted(output.glob("*.parquet"))]
    shutil.rmtree(output)
    with pytest.raises(KeyboardInterrupt):
        run(load_config(own), StoppingEngine(2), Recorder())
    rest = StoppingEngine(99)
    recorder = Recorder()
    run(load_config(own), rest, recorder)
    assert recorder.worked == ["embed"]
    assert [name for name, *_ in rest.handed_out] == ["part-00002.parquet"]
    assert [pq.read_table(file) for file in sorted(output.glob("*.parquet"))] == before


def test_a_run_without_labels_has_no_evaluation(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    metrics, _ = run_local(path, "data.label_column=null", "train.max_steps=10")
    assert "evaluate" not in metrics


def test_progress_is_reported_for_items_and_for_training(tmp_path: Path) -> None:
    _, recorder = run_local(write_run(tmp_path))
    assert [step for step in recorder.steps if step[0] == "packing"] == [("packing", done, 3) for done in range(4)]
    trained = [step for step in recorder.steps if step[0] == "training"]
    assert trained == 3 * [("training", 20, 40), ("training", 40, 40)], "the functions twice, and the map"
    assert len(recorder.ritz_sums) == 2


def test_a_stage_alone_demands_its_inputs(tmp_path: Path, own: Path) -> None:
    path = write_run(tmp_path / "fresh")
    with pytest.raises(MissingArtifactError, match="vectors: holds no finished artifact"):
        opened(path).stage("neighbors")
    made = "made from other inputs or another config"
    with pytest.raises(FingerprintMismatchError, match=rf"training: {made} \(train\.max_steps is 41, was 40\)"):
        opened(own, "train.max_steps=41").stage("polish")
    with pytest.raises(FingerprintMismatchError, match=rf"{made} \(affinity\.kind is uniform, was self_tuning\)"):
        opened(own, "affinity.kind=uniform").stage("calibrate")


def test_a_stage_alone_runs_or_is_skipped(own: Path) -> None:
    pipeline = opened(own, "affinity.kind=uniform")
    assert pipeline.stage("graph").stage == "graph"
    assert pipeline.observer.worked == ["graph"]  # type: ignore[attr-defined]


def opened(path: Path, *overrides: str) -> Pipeline:
    config = load_config(path, overrides)
    return Pipeline(config, Source.open(config.data), LocalEngine(), Recorder())


def test_the_same_rows_embedded_as_other_rows_get_the_same_coordinates(own: Path, tmp_path: Path) -> None:
    pipeline = opened(own)
    shard = Source.open(pipeline.config.data).shards[1]
    rows = np.stack(pq.read_table(shard.uri)["vector"].to_pylist()).astype(np.float32)
    write_vectors(
        str(tmp_path / "other"), rows, labels=np.zeros(len(rows), np.int64), ids=np.arange(900, 900 + len(rows))
    )
    source = Source.open(pipeline.config.data.model_copy(update={"path": str(tmp_path / "other")}))
    manifest = pipeline.embed_other(source, str(tmp_path / "embedded"))
    assert manifest.n_rows == len(rows) == 30
    other = pq.read_table(tmp_path / "embedded" / "part-00000.parquet")
    known = pq.read_table(own.parent / "root/output/part-00001.parquet")
    assert other["id"].to_pylist() == list(range(900, 930))
    assert other["cluster"] == known["cluster"]
    np.testing.assert_allclose(other["embedding"].to_pylist(), known["embedding"].to_pylist(), rtol=1e-5, atol=1e-6)
    again = opened(own)
    again.embed_other(source, str(tmp_path / "embedded"))
    assert again.observer.up_to_date == ["embed"]  # type: ignore[attr-defined]


def other_rows(pipeline: Pipeline, path: Path | str) -> Source:
    return Source.open(pipeline.config.data.model_copy(update={"path": str(path)}))


def numbered_rows(folder: Path, first_id: int, shift: float = 0.0) -> None:
    vectors, labels = blobs(N_ROWS, DIM)
    ids = np.arange(first_id, first_id + N_ROWS)
    write_vectors(str(folder), vectors + np.float32(shift), labels=labels, ids=ids)


def test_a_folder_that_grew_has_only_its_new_shards_embedded(own: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "other", tmp_path / "embedded"
    numbered_rows(folder / "b", 1000)
    opened(own).embed_other(other_rows(opened(own), folder), str(out))
    before = pq.read_table(out / "part-00000.parquet")
    numbered_rows(folder / "a", 2000, shift=8.0)
    manifest = opened(own).embed_other(other_rows(opened(own), folder), str(out))
    assert manifest.metrics["embedded_shards"] == 1
    assert manifest.metrics["drift"]["drifted"]  # of the new rows, not of those before
    assert [shard.n_rows for shard in manifest.shards] == [N_ROWS, N_ROWS]
    assert pq.read_table(out / "part-00001.parquet") == before
    assert pq.read_table(out / "part-00000.parquet")["id"].to_pylist() == list(range(2000, 2000 + N_ROWS))
    assert manifest.metrics["agreement"].keys() == {"acc", "nmi", "ari"}


def test_a_model_embeds_although_the_rows_it_was_trained_on_have_changed(own: Path, tmp_path: Path) -> None:
    trained = opened(own)
    folder = tmp_path / "data"
    shutil.copytree(str(trained.config.data.path), folder)
    numbered_rows(folder / "new", 5000)
    pipeline = opened(own, f"data.path={folder}")
    manifest = pipeline.embed_other(pipeline.source, str(tmp_path / "embedded"))
    assert manifest.n_rows == 2 * N_ROWS
    with pytest.raises(FingerprintMismatchError):
        opened(own, f"data.path={folder}").stage("embed")


@pytest.mark.parametrize("shards", [None, range(1)])
def test_rows_of_another_width_are_refused_before_a_cluster_is_asked_for(
    own: Path, tmp_path: Path, shards: range | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: LocalEngine, stages: Sequence[Stage], n_values: float = 0) -> None:
        raise AssertionError(f"a cluster was asked for: {stages}")

    monkeypatch.setattr(LocalEngine, "start", start)
    pipeline, out = opened(own), str(tmp_path / "embedded")
    write_vectors(str(tmp_path / "wide"), np.ones((5, DIM + 1), np.float32), labels=np.zeros(5, np.int64))
    source = other_rows(pipeline, tmp_path / "wide")
    embed = pipeline.embed_other if shards is None else functools.partial(pipeline.embed_part, shards)
    found = f"wide/.*: rows have width {DIM + 1}, the run .*root was trained on {DIM}"
    with pytest.raises(ShardWidthError, match=found):
        embed(source, out)
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
    pipeline, embedded = opened(path), iter(range(9))

    def embed(folder: str, **data: Any) -> list[int]:
        config, out = pipeline.config.data, tmp_path / f"embedded-{next(embedded)}"
        source = Source.open(config.model_copy(update={"path": str(tmp_path / folder), **data}))
        pipeline.embed_other(source, str(out))
        found: list[int] = pq.read_table(out / "part-00000.parquet")["cluster"].to_pylist()
        return found

    refused = "others/.*: feature 2 is column 'x3', the run .*root was trained on 'x2' there; rename .*data.column="
    with pytest.raises(UnknownColumnError, match=refused):
        embed("others")
    with pytest.raises(UnknownColumnError, match="feature 2 is column 'x3'"):
        pipeline.embed_part(range(1), other_rows(pipeline, tmp_path / "others"), str(tmp_path / "part"))
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
    pipeline = opened(own)
    numbered_rows(tmp_path / "same", 1000)
    numbered_rows(tmp_path / "shifted", 1000, shift=8.0)
    drifts = [
        pipeline.embed_other(other_rows(pipeline, tmp_path / name), str(tmp_path / f"of-{name}")).metrics["drift"]
        for name in ("same", "shifted")
    ]
    assert [drift["drifted"] for drift in drifts] == [False, True]
    assert drifts[0]["n_rows"] == N_ROWS
    assert "drift" not in pipeline.chain.artifact("embed").manifest().metrics
    silent = opened(own, "embed.drift_rows=0")
    manifest = silent.embed_other(other_rows(silent, tmp_path / "shifted"), str(tmp_path / "unasked"))
    assert "drift" not in manifest.metrics


def test_other_rows_of_1970s_seconds_are_embedded_as_those_trained_on(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    moved(tmp_path / "data", 1.7e9)
    run_local(path)
    pipeline = opened(path, "data.on_bad_rows=quarantine")
    vectors = np.vstack([blobs(N_ROWS, DIM)[0][:60].astype(np.float64) + 1.7e9, np.full((1, DIM), 1e30)])
    for name, shift in (("same", 0.0), ("later", 1e6)):
        write_vectors(str(tmp_path / name), vectors + shift, labels=np.zeros(61, np.int64))
    same, later = (
        pipeline.embed_other(other_rows(pipeline, tmp_path / name), str(tmp_path / f"of-{name}"))
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
    config = load_config(path)
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    pipeline.embed_other(other_rows(pipeline, tmp_path / "other"), str(tmp_path / "of-other"))
    found = MappedVectors(Artifact(str(tmp_path / "of-other/embedding"))).block(0, 300)
    np.testing.assert_allclose(found, known["embedding"], rtol=1e-4, atol=1e-5)


def test_a_run_that_starts_from_another_knows_where_its_own_rows_lie(tmp_path: Path) -> None:
    for name, offset, start in (("before", 1.7e9, None), ("after", 1.8e9 + 5, "before"), ("same", 1.7e9, "before")):
        start_from = {} if start is None else {"start_from": str(tmp_path / start / "root")}
        path = write_run(tmp_path / name, **start_from)
        moved(tmp_path / name / "data", offset)
        run_local(path)
    before, after, same = (
        read_state(Artifact(str(tmp_path / name / "root/training")), "model.pt")["network.perceptron.input_mean"]
        for name in ("before", "after", "same")
    )
    own = MappedVectors(Artifact(str(tmp_path / "after/root/vectors"))).mean
    np.testing.assert_allclose(after, own, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(same, before)


def test_parts_of_a_run_make_its_whole_output(own: Path) -> None:
    output = own.parent / "root/output"
    before = [pq.read_table(file) for file in sorted(output.glob("*.parquet"))]
    assert opened(own).embed_part(range(0, 1)).n_rows == N_ROWS  # nothing to do
    shutil.rmtree(output)
    first = opened(own).embed_part(range(1, 3))
    assert isinstance(first, Unfinished)
    assert (first.n_done, first.n_shards) == (2, 3)
    assert not isinstance(opened(own).embed_part(range(0, 1)), Unfinished)
    assert [pq.read_table(file) for file in sorted(output.glob("*.parquet"))] == before
    recorder = run_local(own)[1]
    assert "embed" in recorder.up_to_date


def test_parts_of_other_rows_are_compared_with_the_training_rows(own: Path, tmp_path: Path) -> None:
    numbered_rows(tmp_path / "other/a", 1000, shift=8.0)
    numbered_rows(tmp_path / "other/b", 2000)
    source = other_rows(opened(own), tmp_path / "other")
    first = opened(own).embed_part(range(0, 1), source, str(tmp_path / "out"))
    assert isinstance(first, Unfinished)
    assert first.metrics["drift"]["drifted"]
    last = opened(own).embed_part(range(1, 2), source, str(tmp_path / "out"))
    assert not isinstance(last, Unfinished)
    assert not last.metrics["drift"]["drifted"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_bad_row_met_in_a_ray_task_is_the_users_error_and_the_cluster_found_stays(tmp_path: Path) -> None:
    import ray

    path = write_run(tmp_path)
    vectors = np.ones((5, DIM), np.float32)
    vectors[3, 2] = np.nan
    write_vectors(str(tmp_path / "data"), vectors, labels=np.zeros(5, np.int64))  # replaces part-00000
    config = load_config(path, ["data.id_column=null"])
    with pytest.raises(NonFiniteRowError, match=r"part-00000\.parquet.*row 3"):
        run(config, RayEngine(config.ray), Recorder())
    assert ray.is_initialized()


def test_metrics_say_how_busy_a_stages_work_kept_its_cores(tmp_path) -> None:
    config = load_config(write_run(tmp_path))
    metrics = run(config, LocalEngine(), Recorder())
    assert set(metrics["busy"]) == set(metrics["seconds"])
    training = metrics["busy"]["train"]
    assert training["workers"] > training["driver"], "training is this process's work as a worker"


def test_a_network_of_the_users_own_is_trained_though_nobody_knows_its_layers(tmp_path) -> None:
    config = load_config(write_metric_run(tmp_path, network={"trunk": "torch.nn:Linear"}))
    assert run(config, LocalEngine(), Recorder())["train"]["steps"] == 40
