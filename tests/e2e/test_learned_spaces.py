"""Runs in learned spaces: the chain's artifacts agree with one another, and the model takes raw rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distspectral.embedding.forward import forward
from distspectral.errors import CollapsedError, NoEdgesError
from distspectral.graph.store import MappedGraph
from distspectral.graph.weights import median_squared_distance
from distspectral.models.state import read_state, write_state
from distspectral.spectral.diagnostics import label_agreement
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.stages.codes import encode_codes, load_encoder
from distspectral.stages.features import load_siamese
from distspectral.stages.train import train
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import MappedVectors
from tests.runs import BRIEF, DIM, LEARNED, N_ROWS
from tests.stages.chain import pipeline_upto


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return pipeline_upto(tmp_path_factory.mktemp("learned"), "embed", **LEARNED)


def rows_of(pipeline, stage):
    return MappedVectors(pipeline.chain.artifact(stage)).block(0, N_ROWS)


def test_codes_and_features_are_the_networks_at_every_row_in_order(learned):
    encoder = load_encoder(learned.chain.artifact("autoencoder"))
    siamese = load_siamese(learned.chain.artifact("siamese"))
    np.testing.assert_allclose(rows_of(learned, "codes"), forward(encoder, rows_of(learned, "pack")), atol=1e-5)
    np.testing.assert_allclose(rows_of(learned, "features"), forward(siamese, rows_of(learned, "codes")), atol=1e-5)
    manifests = [learned.chain.artifact(stage).manifest() for stage in ("pack", "codes")]
    assert [shard.n_rows for shard in manifests[0].shards] == [shard.n_rows for shard in manifests[1].shards]


def test_neighbors_are_those_of_the_codes_and_weights_those_of_siamese_distances(learned):
    codes, features = rows_of(learned, "codes"), rows_of(learned, "features")
    graph, before = (MappedGraph(learned.chain.artifact(stage)) for stage in ("reweight", "graph"))
    neighbors, weights = graph.block(0, N_ROWS)
    distances = np.square(codes[:, None] - codes[None]).sum(2) + np.diag(np.full(N_ROWS, np.inf))
    nearest = np.sort(distances, axis=1)[:, : graph.n_neighbors]
    np.testing.assert_allclose(np.take_along_axis(distances, neighbors, 1), nearest, rtol=1e-4)
    squared = np.square(features[:, None] - features[neighbors]).sum(2)
    median = np.median(squared)
    assert median_squared_distance(before, MappedVectors(learned.chain.artifact("features"))) == pytest.approx(median)
    expected = np.exp(-squared / (2 * median))
    np.testing.assert_allclose(weights, np.maximum(expected, np.finfo(np.float16).tiny), rtol=2e-3, atol=1e-7)


def test_the_model_takes_raw_rows_through_all_encoders(learned):
    network = load_calibrated_network(learned.chain.artifact("calibrate"))
    assert network.dim == DIM
    assert network.inputs == ("code", "siamese")
    seen = np.hstack([rows_of(learned, "codes"), rows_of(learned, "features")])
    expected = forward(network.perceptron, seen)
    np.testing.assert_allclose(forward(network, rows_of(learned, "pack")), expected, rtol=1e-3, atol=1e-4)
    card = learned.chain.artifact("calibrate").read_json("model_card.json")
    assert card["network"]["inputs"] == ["code", "siamese"]


def test_outputs_are_orthonormal_under_the_reweighted_degrees(learned):
    graph = MappedGraph(learned.chain.artifact("reweight"))
    f = forward(load_calibrated_network(learned.chain.artifact("calibrate")), rows_of(learned, "pack")).astype(float)
    neighbors, weights = graph.block(0, N_ROWS)
    degree = weights.sum(1) + np.bincount(neighbors.ravel(), weights.ravel(), N_ROWS)
    np.testing.assert_allclose(f.T @ (f * (degree / degree.sum())[:, None]), np.eye(f.shape[1]), atol=1e-4)


def test_blobs_are_found_in_every_variant(tmp_path, learned):
    train = learned.config.train.model_dump()
    variants = {
        "code": LEARNED | {"affinity": {"space": "euclidean"}},
        "input-siamese": LEARNED | {"representation": "input"},
        "rebuild": LEARNED | {"siamese": BRIEF | {"use": "rebuild"}},
        "vector too": LEARNED | {"train": train | {"inputs": ["vector", "code", "siamese"]}},
    }
    runs = {name: pipeline_upto(tmp_path / name, "embed", **sections) for name, sections in variants.items()}
    for name, pipeline in {"code-siamese": learned, **runs}.items():
        scores = pipeline.chain.artifact("embed").manifest().metrics["agreement"]
        assert scores["acc"] > 0.95, name
        assert set(scores) == set(label_agreement(np.eye(2, dtype=np.int64)))
    seen = {name: load_calibrated_network(run.chain.artifact("calibrate")).inputs for name, run in runs.items()}
    assert seen == {
        "code": ("code",),
        "input-siamese": ("vector", "siamese"),
        "rebuild": ("code", "siamese"),
        "vector too": ("vector", "code", "siamese"),
    }


def test_collapsed_codes_are_named_and_nothing_is_committed(tmp_path):
    pipeline = pipeline_upto(tmp_path, "autoencoder", **LEARNED)
    training = pipeline.chain.artifact("autoencoder")
    state = read_state(training, "model.pt")
    state["encoder.head.weight"].zero_()
    state["encoder.head.bias"].fill_(1.5)
    write_state(training, "model.pt", state)
    output = pipeline.chain.outputs["codes"]
    with pytest.raises(CollapsedError, match="maps all 120 rows to one point"):
        encode_codes(pipeline.chain.artifact("pack"), training, output)
    assert not output.artifact.has(".manifest.json")


def test_a_graph_without_edges_trains_no_siamese_network(learned):
    class Empty:
        n_rows, n_neighbors = N_ROWS, 3

        def gather(self, rows):
            return np.repeat(rows[:, None], 3, axis=1), np.zeros((len(rows), 3), np.float32)

    trainer = learned.recipe.trainings["siamese"].trainer(MappedVectors(learned.chain.artifact("codes")), Empty())
    with pytest.raises(NoEdgesError, match="graph is empty"):
        trainer.sampler.batch(0)


def test_other_settings_of_the_siamese_network_leave_the_graph_alone(tmp_path):
    one, other = (
        pipeline_upto(tmp_path / name, "pack", **LEARNED | {"siamese": BRIEF | {"margin": margin}}).chain
        for name, margin in (("one", 1.0), ("other", 2.0))
    )
    same = [stage for stage in one.outputs if one.outputs[stage].config == other.outputs[stage].config]
    assert "siamese" not in same
    assert {"codes", "neighbors", "graph", "train"} <= set(same)


@pytest.mark.parametrize("stage", ["autoencoder", "siamese"])
def test_an_interrupted_encoder_goes_on_and_ends_in_the_same_weights(tmp_path, stage):
    class Killed(BaseException):
        """Stands for the end of the process."""

    brief = BRIEF | {"window_steps": 5, "checkpoint_steps": 10, "patience": 0}
    sections = LEARNED | {"autoencoder": brief, "siamese": brief}
    whole = pipeline_upto(tmp_path / "run", "graph", **sections)
    settings = whole.recipe.trainings[stage]
    rows = (whole.chain.artifact("codes" if stage == "siamese" else "pack"),)
    graph = whole.chain.artifact("graph") if stage == "siamese" else None
    outputs = [
        dataclasses.replace(whole.chain.outputs[stage], artifact=Artifact(str(tmp_path / f"{stage}-{name}")))
        for name in ("whole", "killed")
    ]

    def die_at_25(record):
        if record["step"] == 25:
            raise Killed

    train(rows, graph, outputs[0], settings)
    with pytest.raises(Killed):
        train(rows, graph, outputs[1], settings, on_window=die_at_25)
    resumed = []
    train(rows, graph, outputs[1], settings, on_window=lambda record: resumed.append(record["step"]))
    assert resumed == [25, 30, 35, 40], "from the checkpoint at 20"
    states = [read_state(output.artifact, "model.pt") for output in outputs]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
