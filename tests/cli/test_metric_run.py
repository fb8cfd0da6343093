"""``distspectral run`` and its companions for objective dscl."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distspectral.cli.app import EXIT_REFUSED
from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.orchestration.engine import LocalEngine, RayEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline, run
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.storage.source.dataset import Source
from tests.cli.invoking import invoke
from tests.runs import copied_run, write_metric_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_metric_run(tmp_path_factory.mktemp("cli"))
    result = invoke("run", path, "--local")
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("  step")]
    assert [line.split()[1] for line in lines] == ["20", "40"]
    assert all("loss" in line and "rows/s" in line and "Ritz" not in line for line in lines)
    assert "Recall@1, 2, 4, 8, 10, 100" in result.stdout
    return path


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own to spoil, over the same data."""
    return copied_run(finished, tmp_path)


def test_a_second_run_skips_all_four_stages_and_tells_the_same(finished: Path) -> None:
    metrics = json.loads((finished.parent / "root/metrics.json").read_text())
    again = invoke("run", finished, "--local", "--json")
    assert again.stderr.count("up to date") == 4
    assert json.loads(again.stdout) == metrics
    assert list(metrics["seconds"]) == ["pack", "train", "embed", "evaluate"]
    assert metrics["train"]["steps"] == 40
    assert metrics["train"]["n_train_classes"] == 10


@pytest.mark.parametrize(
    ("override", "worked"),
    [
        ("pack.dtype=float16", ["packed", "trained", "embedded", "evaluated"]),
        ("dscl.rows_per_class=4", ["trained", "embedded", "evaluated"]),
        ("dscl.whiten=true", ["embedded", "evaluated"]),
        ("evaluate.spectral_step=true", ["evaluated"]),
        ("evaluate.device=cpu", []),
        ("cluster.n_clusters=7", []),
        ("graph.n_neighbors=7", []),
    ],
)
def test_only_stages_behind_a_change_run_again(own: Path, override: str, worked: list[str]) -> None:
    result = invoke("run", own, "--local", "--set", override)
    done = [word for word in ("packed", "trained", "embedded", "evaluated") if f" {word} in " in result.stderr]
    assert done == worked


def test_a_lost_embedding_is_made_again_from_the_trained_weights(own: Path) -> None:
    shutil.rmtree(own.parent / "root/embedding")
    result = invoke("run", own, "--local")
    assert "train             up to date" in result.stderr
    assert "embed             embedded" in result.stderr
    assert "evaluate          up to date" in result.stderr, "the same rows come out, so its fingerprint stands"


def test_evaluate_prints_the_scores_that_the_run_stored(finished: Path) -> None:
    root = finished.parent / "root"
    scores = json.loads(invoke("evaluate", root, "--retrieval", "--json").stdout)
    assert list(scores) == ["recall_at", "nmi", "map_at_r"]
    assert list(scores["recall_at"]) == ["1", "2", "4", "8", "10", "100"]
    assert scores == json.loads((root / "metrics.json").read_text())["evaluate"]["retrieval"]
    other = json.loads(invoke("evaluate", root, "--retrieval", "--spectral-step", "--json").stdout)
    assert other != scores
    assert "Recall@1" in invoke("evaluate", root, "--retrieval").stdout


def test_evaluate_says_what_it_needs(finished: Path, tmp_path: Path) -> None:
    clusters = invoke("evaluate", finished.parent / "root").stderr
    assert "root/embedding: was written without clusters; of a learned metric --retrieval" in clusters
    absent = invoke("evaluate", tmp_path, "--retrieval")
    assert absent.exit_code == EXIT_REFUSED
    assert "holds no finished run" in absent.stderr
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / MANIFEST).write_text("{}")
    assert "of objective spectral has no learned metric" in invoke("evaluate", tmp_path, "--retrieval").stderr


def test_stages_one_by_one_are_the_whole_run(finished: Path, tmp_path: Path) -> None:
    path = write_metric_run(tmp_path)
    for stage in ("pack", "train", "embed"):
        assert invoke("stage", stage, path, "--local", "--quiet").exit_code == 0
    one, whole = (MappedVectors(Artifact(f"{p.parent}/root/embedding")) for p in (path, finished))
    assert np.array_equal(one.gather(np.arange(300)), whole.gather(np.arange(300)))
    refused = invoke("stage", "graph", path, "--local")
    assert refused.exit_code == EXIT_REFUSED
    assert (
        "stage graph: is none of this run, whose stages are pack, train, embed, evaluate; they follow from objective"
        in refused.stderr
    )


def test_other_rows_are_embedded_and_judged_by_the_same_model(own: Path, tmp_path: Path) -> None:
    rows = MappedVectors(Artifact(f"{own.parent}/root/vectors"))
    labels = np.asarray(rows.labels())
    unseen = np.flatnonzero(labels > 9)[:70]
    write_vectors(str(tmp_path / "new"), rows.gather(unseen), labels=labels[unseen])
    arguments = ("embed", own, "--local", tmp_path / "new", "--output", tmp_path / "out")
    assert invoke(*arguments).exit_code == 0
    known = MappedVectors(Artifact(f"{own.parent}/root/embedding")).gather(unseen)
    found = MappedVectors(Artifact(f"{tmp_path}/out/embedding")).gather(np.arange(70))
    np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-6)
    assert invoke(*arguments).stderr.count("up to date") == 2
    scores = json.loads(invoke("evaluate", tmp_path / "out", "--retrieval", "--json").stdout)
    assert 0 < scores["recall_at"]["1"] <= 1


def test_an_embedding_of_a_changed_config_is_refused(own: Path, tmp_path: Path) -> None:
    source = load_config(own).data.path
    changed = ("--set", "train.max_steps=41")
    result = invoke("embed", own, "--local", source, "--output", tmp_path / "out", *changed)
    assert "training: made from other inputs or another config" in result.stderr


def test_inspect_shows_the_chain(finished: Path) -> None:
    root = finished.parent / "root"
    assert list(json.loads(invoke("inspect", root, "--json").stdout)) == [
        f"{root}/{name}" for name in ("vectors", "training", "embedding", "evaluation")
    ]


def test_validate_names_what_is_learned(finished: Path) -> None:
    assert "a metric of 6 components" in invoke("validate", finished).stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.label_column=null", "data.label_column: is not set"),
        ("train.batch_size=9", "a batch needs 2 classes, so at least 10 rows"),
        ("dscl.n_components=50", "dscl.n_components: is 50 for batches of 50 rows"),
        ("network.trunk=nowhere:net", "network.trunk: 'nowhere:net' cannot be imported"),
        ("dscl.rows_per_class=1", "dscl.rows_per_class: expected at least 2 (got 1)"),
        ("objective=dcsl", "objective: expected 'spectral' or 'dscl' (got 'dcsl')"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_starts(finished: Path, override: str, message: str) -> None:
    result = invoke("run", finished, "--local", "--set", override)
    assert result.exit_code == EXIT_REFUSED
    assert message in result.stderr
    assert "packed" not in result.stderr


def test_a_trunk_is_refused_where_calibration_needs_the_perceptron(finished: Path) -> None:
    result = invoke("run", finished, "--local", "--set", "objective=spectral", "--set", "network.trunk=a:b")
    assert "network.trunk: is set, but calibration" in result.stderr


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    class Killed(BaseException):
        """Stands for the end of the process."""

    class Recorder(SilentObserver):
        def __init__(self, dies_at: int | None) -> None:
            self.steps: list[int] = []
            self.dies_at = dies_at

        def window(self, record: dict[str, Any]) -> None:
            self.steps.append(record["step"])
            if record["step"] == self.dies_at:
                raise Killed

    train = {"batch_size": 50, "max_steps": 60, "window_steps": 10, "checkpoint_steps": 20, "device": "cpu"}
    paths = [write_metric_run(tmp_path / name, train=train) for name in ("killed", "whole")]
    with pytest.raises(Killed):
        run(load_config(paths[0]), LocalEngine(), Recorder(50))
    again = Recorder(None)
    metrics = run(load_config(paths[0]), LocalEngine(), again)
    assert again.steps == [50, 60], "from the checkpoint at 40"
    whole = run(load_config(paths[1]), LocalEngine(), Recorder(None))
    assert metrics["train"]["loss"] == whole["train"]["loss"]
    assert metrics["evaluate"]["retrieval"] == whole["evaluate"]["retrieval"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_two_ray_workers_learn_what_one_process_learns(finished: Path, tmp_path: Path) -> None:
    config = load_config(write_metric_run(tmp_path, ray={"workers": 2}))
    Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver()).stage("pack")
    Pipeline(config, Source.open(config.data), RayEngine(config.ray), SilentObserver()).stage("train")
    metrics = run(config, LocalEngine(), SilentObserver())
    alone = json.loads((finished.parent / "root/metrics.json").read_text())
    assert metrics["train"]["loss"] == pytest.approx(alone["train"]["loss"], rel=1e-4)
    assert metrics["evaluate"]["retrieval"]["recall_at"]["1"] == pytest.approx(
        alone["evaluate"]["retrieval"]["recall_at"]["1"], abs=0.02
    )


def test_a_metric_refuses_rows_without_labels(tmp_path: Path) -> None:
    path = write_metric_run(tmp_path)
    shard = tmp_path / "data/part-00000.parquet"
    table = pq.read_table(shard)
    labels = pa.array([None, *table["label"].to_pylist()[1:]], pa.int64())
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", labels), shard)
    result = invoke("run", path, "--local")
    assert result.exit_code == EXIT_REFUSED
    assert "data.label_column: 1 of 300 rows have no label, and objective dscl learns from labels" in result.stderr
