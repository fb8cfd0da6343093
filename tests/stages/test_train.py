from __future__ import annotations

import ast
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch

import distspectral
from distspectral.errors import DamagedArtifactError
from distspectral.models.state import read_state
from distspectral.stages.train import train
from distspectral.storage.artifact.directory import Artifact
from distspectral.training.checkpoint import checkpoint_names
from tests.stages.chain import pipeline_upto


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def pipeline(tmp_path):
    return pipeline_upto(tmp_path, "graph", train={"batch_size": 64, "max_steps": 80, "window_steps": 10,
                                                   "checkpoint_steps": 20, "patience": 0, "device": "cpu"})  # fmt: skip


def run(pipeline, on_window=None):
    inputs = (pipeline.chain.artifact("pack"),), pipeline.chain.artifact("graph")
    return train(*inputs, pipeline.chain.outputs["train"], pipeline.recipe.trainings["train"], on_window=on_window)


def windows(artifact):
    return [json.loads(line)["step"] for line in artifact.read_bytes("metrics.jsonl").splitlines()]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_that_records_no_gradients_trains_all_the_same(pipeline, mode):
    with mode():
        run(pipeline)
    assert windows(pipeline.chain.artifact("train"))[-1] == 80


def test_an_interrupted_training_goes_on_from_its_checkpoint(pipeline):
    heard = []

    def die_at_50(record):
        heard.append(record["step"])
        if record["step"] == 50:
            raise Killed

    with pytest.raises(Killed):
        run(pipeline, die_at_50)
    artifact = pipeline.chain.artifact("train")
    assert not artifact.has(".manifest.json")
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
    states = [read_state(p.chain.artifact("train"), "model.pt") for p in (pipeline, other)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_a_damaged_checkpoint_is_named(pipeline):
    with pytest.raises(Killed):
        run(pipeline, lambda record: (_ for _ in ()).throw(Killed()) if record["step"] == 30 else None)
    artifact = pipeline.chain.artifact("train")
    (name,) = checkpoint_names(artifact)
    artifact.write_file(name, lambda stream: stream.write(b"no checkpoint"))
    with pytest.raises(DamagedArtifactError, match=rf"none of its checkpoints can be read \({name}\); delete"):
        run(pipeline)


def flip_a_bit(path, at=0.5):
    """Flip a bit of the largest tensor: between the records of the zip file there is padding that nobody reads."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as records:
        largest = max(records.infolist(), key=lambda record: record.file_size)
        tensor = records.read(largest)
    content[content.index(tensor) + int(len(tensor) * at)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["a bit", "cut off", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(pipeline, tmp_path, caplog, damage):
    def die(record):
        if record["step"] == 70:
            raise Killed

    with pytest.raises(Killed):
        run(pipeline, die)
    artifact = pipeline.chain.artifact("train")
    _, newest = checkpoint_names(artifact)
    path = Path(artifact.file_path(newest))
    if damage == "a bit":
        flip_a_bit(path)
    else:
        path.write_bytes(path.read_bytes()[:-40] if damage == "cut off" else b"")
    resumed = []
    run(pipeline, lambda record: resumed.append(record["step"]))
    assert resumed == [50, 60, 70, 80], "from 40, not from 60"
    (warning,) = [record for record in caplog.records if record.name == "distspectral.training.checkpoint"]
    assert newest in warning.getMessage()
    assert "trying the checkpoint before it" in warning.getMessage()
    other = pipeline_upto(tmp_path / "other", "train", train=pipeline.config.train.model_dump())
    states = [read_state(p.chain.artifact("train"), "model.pt") for p in (pipeline, other)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert checkpoint_names(artifact)[-1] == "checkpoints/step-000000080.pt"


def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path):
    train_section = {"batch_size": 64, "max_steps": 50, "checkpoint_steps": 10, "keep_checkpoints": 4, "device": "cpu"}
    pipeline = pipeline_upto(tmp_path, "train", train=train_section)
    names = checkpoint_names(pipeline.chain.artifact("train"))
    assert names == [f"checkpoints/step-{step:09d}.pt" for step in (20, 30, 40, 50)]


def test_checkpoints_of_a_process_and_of_ray_train_are_one_list(tmp_path):
    artifact = Artifact(str(tmp_path))
    for name in ("step-000000040.pt", "step-000000200/checkpoint.pt", "step-000000200-again/checkpoint.pt", "x.json"):
        artifact.write_file(f"checkpoints/{name}", lambda stream: None)
    (tmp_path / "checkpoints" / "step-000000300").mkdir()
    assert checkpoint_names(artifact) == [
        "checkpoints/step-000000040.pt",
        "checkpoints/step-000000200/checkpoint.pt",
        "checkpoints/step-000000200-again/checkpoint.pt",
        "checkpoints/step-000000300/checkpoint.pt",
    ]


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_model_with_a_flipped_bit_is_never_used(pipeline, where):
    run(pipeline)
    artifact = pipeline.chain.artifact("train")
    flip_a_bit(Path(artifact.file_path("model.pt")), where)
    with pytest.raises(DamagedArtifactError, match=r"model\.pt: not a readable state"):
        pipeline.stage("polish")


def test_a_state_that_holds_code_is_refused_without_running_it(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"weights": Hostile()}, tmp_path / "model.pt")
    with pytest.raises(DamagedArtifactError, match=r"model\.pt"):
        read_state(Artifact(str(tmp_path)), "model.pt")
    assert not (tmp_path / "pwned").exists()


def test_no_module_reads_states_or_arrays_in_a_way_that_runs_code():
    for path in Path(distspectral.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert said.get("weights_only", "True") == "True", path
                assert said.get("allow_pickle", "False") == "False", path
                assert "torch" not in ast.unparse(node.func) or "weights_only" in said, path
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & set(names), path


def test_a_lost_weight_file_makes_the_stage_run_again(pipeline):
    run(pipeline)
    output = pipeline.chain.outputs["train"]
    assert output.artifact.is_current(output.fingerprint)
    output.artifact.filesystem.delete_file(output.artifact.file_path("model.pt"))
    assert not output.artifact.is_current(output.fingerprint)
