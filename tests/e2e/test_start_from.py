"""A run over more rows begins with the weights of the run before."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from distspectral.config import check, load_config
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError, MissingArtifactError
from distspectral.models.state import read_state
from distspectral.stages.train import open_trainer
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.source.dataset import Source
from tests.datasets import blobs
from tests.runs import DIM, LEARNED, N_ROWS, write_run
from tests.stages.chain import pipeline_upto


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A finished run of the first rows."""
    return pipeline_upto(tmp_path_factory.mktemp("before"), "embed", **LEARNED)


def test_every_training_begins_with_the_weights_of_the_run_before(before, tmp_path):
    root = before.config.root
    later = pipeline_upto(tmp_path, "embed", sizes=(50, 30, 20, 20), start_from=root, **LEARNED)
    settings = {
        "autoencoder": (("pack",), None, later.recipe.trainings["autoencoder"]),
        "siamese": (("codes",), "graph", later.recipe.trainings["siamese"]),
        "train": (("codes", "features"), "reweight", later.recipe.trainings["train"]),
    }
    for stage, (rows, graph, values) in settings.items():
        vectors = [later.chain.artifact(name) for name in rows]
        trainer = open_trainer(vectors, None if graph is None else later.chain.artifact(graph), values)
        expected = read_state(before.chain.artifact(stage), "model.pt")
        for name, found in trainer.model.state_dict().items():
            assert torch.equal(found, expected[name]), (stage, name)
        assert trainer.step == 0
    values = later.recipe.trainings["map"].upon(later.chain.artifacts)
    vectors = [later.chain.artifact(name) for name in ("codes", "features")]
    trainer = open_trainer(vectors, later.chain.artifact("reweight"), values)
    expected, found = read_state(before.chain.artifact("map"), "model.pt"), trainer.model.state_dict()
    assert torch.equal(found["head.weight"], expected["head.weight"])
    assert not torch.equal(found["start.weight"], expected["start.weight"]), "it knows functions that have turned since"
    assert later.chain.artifact("embed").manifest().metrics["agreement"]["acc"] > 0.95
    assert before.chain.outputs["autoencoder"].fingerprint != later.chain.outputs["autoencoder"].fingerprint


def test_the_loss_goes_on_where_it_was(before, tmp_path):
    fresh = pipeline_upto(tmp_path / "fresh", "autoencoder", **LEARNED)
    started = pipeline_upto(tmp_path / "started", "autoencoder", start_from=before.config.root, **LEARNED)
    logs = [one.chain.artifact("autoencoder").read_bytes("metrics.jsonl").splitlines() for one in (fresh, started)]
    losses = [json.loads(lines[0])["loss"] for lines in logs]
    assert losses[1] < 0.98 * losses[0]


def checked(folder, **sections):
    config = load_config(write_run(folder, **sections))
    check(config, Source.open(config.data))


def test_weights_that_cannot_fit_are_refused_before_anything_runs(before, tmp_path):
    root = before.config.root
    checked(tmp_path, start_from=root, **LEARNED)
    with pytest.raises(ConfigError, match=r"training has hidden = \[16\], this run \[32\]"):
        checked(tmp_path, start_from=root, **LEARNED | {"network": {"hidden": [32]}})
    with pytest.raises(ConfigError, match=r"autoencoder has n_components = 3, this run 2"):
        checked(tmp_path, start_from=root, **LEARNED | {"autoencoder": LEARNED["autoencoder"] | {"n_components": 2}})
    with pytest.raises(ConfigError, match="this run's own root"):
        checked(tmp_path, start_from=root, root=root, **LEARNED)
    with pytest.raises(ConfigError, match=r"start_from: .*nowhere holds no run"):
        checked(tmp_path, start_from=str(tmp_path / "nowhere"), **LEARNED)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").touch()
    with pytest.raises(MissingArtifactError, match="autoencoder: holds no finished artifact"):
        checked(tmp_path, start_from=str(tmp_path / "begun"), **LEARNED)
    write_vectors(str(tmp_path / "wide"), np.pad(blobs(N_ROWS, DIM)[0], ((0, 0), (0, 1))))
    with pytest.raises(ConfigError, match="autoencoder has dim = 5, this run 6"):
        checked(tmp_path, start_from=root, data={"path": str(tmp_path / "wide")}, **LEARNED)


def test_weights_of_another_width_are_named_where_only_training_can_tell(before, tmp_path):
    settings = before.recipe.trainings["train"].model_copy(update={"start_from": f"{before.config.root}/training"})
    with pytest.raises(ConfigError, match=r"start_from: the weights of .*training do not fit this network"):
        open_trainer([Artifact(f"{before.config.root}/codes")], before.chain.artifact("graph"), settings)
