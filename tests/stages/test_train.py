from __future__ import annotations

import json

import pytest

from distspectral.errors import DamagedArtifactError
from distspectral.stages.train import checkpoint_names, train
from distspectral.training.checkpoint import read_state
from tests.stages.chain import pipeline_upto


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def pipeline(tmp_path):
    return pipeline_upto(tmp_path, "graph", train={"batch_size": 64, "max_steps": 80, "window_steps": 10,
                                                   "checkpoint_steps": 20, "patience": 0, "device": "cpu"})  # fmt: skip


def run(pipeline, on_window=None):
    inputs = (pipeline.plan.artifact("pack"),), pipeline.plan.artifact("graph")
    return train(*inputs, pipeline.plan.outputs["train"], pipeline.config.train_settings, on_window=on_window)


def windows(artifact):
    return [json.loads(line)["step"] for line in artifact.read_bytes("metrics.jsonl").splitlines()]


def test_an_interrupted_training_goes_on_from_its_checkpoint(pipeline):
    heard = []

    def die_at_50(record):
        heard.append(record["step"])
        if record["step"] == 50:
            raise Killed

    with pytest.raises(Killed):
        run(pipeline, die_at_50)
    artifact = pipeline.plan.artifact("train")
    assert not artifact.has("manifest.json")
    assert checkpoint_names(artifact) == ["checkpoints/step-000000020.pt", "checkpoints/step-000000040.pt"]
    resumed = []
    manifest = run(pipeline, lambda record: resumed.append(record["step"]))
    assert resumed == [50, 60, 70, 80], "from the checkpoint at 40, not from the start"
    assert windows(artifact) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert manifest.metrics["steps"] == 80
    assert len(checkpoint_names(artifact)) == 2


def test_an_undisturbed_and_a_resumed_run_end_in_the_same_weights(pipeline, tmp_path):
    def die(record):
        if record["step"] == 50:
            raise Killed

    with pytest.raises(Killed):
        run(pipeline, die)
    run(pipeline)
    other = pipeline_upto(tmp_path / "other", "train", train=pipeline.config.train.model_dump())
    states = [read_state(p.plan.artifact("train"), "model.pt") for p in (pipeline, other)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_a_damaged_checkpoint_is_named(pipeline):
    with pytest.raises(Killed):
        run(pipeline, lambda record: (_ for _ in ()).throw(Killed()) if record["step"] == 30 else None)
    artifact = pipeline.plan.artifact("train")
    name = checkpoint_names(artifact)[-1]
    artifact.write_file(name, lambda stream: stream.write(b"no checkpoint"))
    with pytest.raises(DamagedArtifactError, match=name):
        run(pipeline)


def test_a_lost_weight_file_makes_the_stage_run_again(pipeline):
    run(pipeline)
    output = pipeline.plan.outputs["train"]
    assert output.artifact.is_current(output.fingerprint)
    output.artifact.filesystem.delete_file(output.artifact.file_path("model.pt"))
    assert not output.artifact.is_current(output.fingerprint)
