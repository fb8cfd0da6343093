from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
)
from distspectral.mapping import Mapper
from distspectral.models.state import read_state
from distspectral.orchestration.engine import LocalEngine, RayEngine
from distspectral.orchestration.new_rows import embed_new_rows
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.opened_run import finished_run
from distspectral.orchestration.pipeline import Pipeline, run
from distspectral.stages.stage import Stage, Unfinished
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source
from tests.orchestration.recorder import Recorder, run_local
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
    finished = finished_run(config, IdleEngine(), SilentObserver())
    assert "pca" in finished.chain.outputs
    embedded = embed_new_rows(finished_run(config, LocalEngine(), SilentObserver()), source, str(tmp_path / "new"))
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
