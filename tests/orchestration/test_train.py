"""Training under Ray Train: the user's errors as they were raised, lost workers replaced, windows followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from distspectral.comm import collectives
from distspectral.config import load_config
from distspectral.errors import OutputNotWritableError
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.orchestration.train import remove_left_over, train
from distspectral.stages.train import train as train_here
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.source.dataset import Source
from tests import kill
from tests.runs import write_run

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Everything that training reads, made without Ray."""
    config = load_config(str(write_run(tmp_path_factory.mktemp("run"), ray={"workers": 2})))
    pipeline = Pipeline(config, Source.open(config.data), LocalEngine(), SilentObserver())
    for stage in ("pack", "neighbors", "graph"):
        pipeline.stage(stage)
    return pipeline


def ray_train(pipeline: Pipeline, folder: Path, on_window: Any = None, run: Any = None, **changes: Any) -> Any:
    settings = pipeline.recipe.trainings["train"]
    settings = settings.model_copy(update={"train": settings.train.model_copy(update=changes)})
    output = Output(Artifact(str(folder)), "train", "print", {}, {})
    inputs = (pipeline.chain.artifact("pack"),), pipeline.chain.artifact("graph")
    if run is not None:
        return run(*inputs, output, settings, on_window)
    return train(*inputs, output, settings, pipeline.config.ray, on_window=on_window)


def test_an_error_of_one_rank_ends_all_reaches_the_caller_and_is_not_retried(
    ray_cluster: None, pipeline: Pipeline, disk: Path
) -> None:
    """A full disk, which only the rank that writes can see."""
    heard: list[int] = []

    def fill(record: dict[str, Any]) -> None:
        heard.append(record["step"])
        with (disk / "filler").open("ab") as filler:  # written anew, it would empty the disk at every other window
            filler.write(bytes(max(0, shutil.disk_usage(disk).free - 4096)))

    # without a checkpoint: one that Ray Train is storing when the disk fills up would be a lost worker to it
    endless = {"max_steps": 1_000_000, "window_steps": 20, "checkpoint_steps": 1_000_000, "patience": 0}
    with pytest.raises(OutputNotWritableError, match="no space left"):
        ray_train(pipeline, disk / "training", fill, **endless)
    assert heard == sorted(set(heard)), "training did not start again"
    assert not (disk / "training" / ".manifest.json").exists()


def test_an_error_that_every_rank_meets_before_its_first_step_is_not_retried(
    ray_cluster: None, pipeline: Pipeline, tmp_path: Path
) -> None:
    output = Output(Artifact(str(tmp_path)), "train", "print", {}, {})
    settings = pipeline.recipe.trainings["train"]
    with pytest.raises(AssertionError, match="needs a graph") as caught:
        train((pipeline.chain.artifact("pack"),), None, output, settings, pipeline.config.ray)
    assert "open_trainer" in caught.value.__notes__[0], "the traceback came along"


def sum_over_ranks(config: dict[str, Any]) -> tuple[float, str]:
    """Sum a number of the host over ranks; return it and the backends."""
    with collectives.raise_on_all_ranks():
        pass
    ones = {"one": torch.ones(1, dtype=torch.float64)}
    return float(collectives.all_reduce_sum(ones)["one"]), torch.distributed.get_backend()


def test_ray_makes_a_group_with_a_backend_for_either_device(ray_cluster: None, tmp_path: Path) -> None:
    backends = collectives.GPU_BACKENDS.replace("nccl", "gloo")  # NCCL needs a GPU
    trainer = TorchTrainer(
        sum_over_ranks,
        train_loop_config={},
        torch_config=TorchConfig(backends),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(tmp_path)),
    )
    assert trainer.fit().return_value == (2.0, "cpu:gloo,cuda:gloo")


def test_what_killed_workers_left_in_the_temporary_directory_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    mine, foreign = f"distspectral-training-{os.getpid()}-a", "distspectral-training-of-others"
    for name in (mine, foreign, f"distspectral-training-{ended.pid}-b"):
        (tmp_path / name).mkdir()
    remove_left_over()
    assert {path.name for path in tmp_path.iterdir()} == {mine, foreign}


def test_a_damaged_checkpoint_falls_back_and_a_cut_off_list_of_them_is_forgotten(
    ray_cluster: None, pipeline: Pipeline, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Stands for the end of a process that trained without Ray: both kinds of checkpoints are one list."""

    def die_at_50(record: dict[str, Any]) -> None:
        if record["step"] == 50:
            raise Killed

    steps = {"max_steps": 60, "checkpoint_steps": 20, "window_steps": 10, "patience": 0}
    with pytest.raises(Killed):
        ray_train(pipeline, tmp_path, die_at_50, run=train_here, **steps)
    folder = tmp_path / "checkpoints"
    newest = folder / "step-000000060"
    newest.mkdir()
    (newest / "checkpoint.pt").write_bytes((folder / "step-000000040.pt").read_bytes()[:-100])
    (folder / "checkpoint_manager_snapshot.json").write_bytes(b'{"ray_version": "2.6')
    heard: list[dict[str, Any]] = []
    manifest = ray_train(pipeline, tmp_path, heard.append, **steps)
    assert manifest.metrics["steps"] == 60
    assert set(manifest.files) == {"model.pt", "metrics.jsonl"}
    assert [record["step"] for record in heard] == [10, 20, 30, 40, 50, 60], "those before the restart are told again"
    assert heard[-1]["workers"] == 2
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6, "no window is lost or repeated"
    assert (folder / "step-000000060-again" / "checkpoint.pt").exists(), "the last step was taken, from 40"
    assert not (folder / "step-000000040").exists(), "but not from the beginning"


def test_a_killed_worker_is_replaced_and_training_goes_on_from_the_checkpoint(
    ray_cluster: None, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distspectral.orchestration.train._train_rank", kill.deadly_rank(60, "rank 0"))
    heard: list[int] = []
    manifest = ray_train(
        pipeline,
        tmp_path / "training",
        lambda record: heard.append(record["step"]),
        max_steps=100,
        checkpoint_steps=50,
        window_steps=20,
        patience=0,
    )
    assert manifest.metrics["steps"] == 100
    lines = Artifact(str(tmp_path / "training")).read_bytes("metrics.jsonl").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == heard == [20, 40, 60, 80, 100], "no window is lost or repeated, though one was taken again"
    assert len(list((tmp_path / "training" / "tensorboard").iterdir())) == 2, "each group began one"
    taken = sorted(path.name for path in (tmp_path / "training" / "checkpoints").glob("step-*"))
    assert taken == ["step-000000050", "step-000000100"], "the first was not taken again"
