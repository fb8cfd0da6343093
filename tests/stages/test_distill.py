"""Polish and distillation as stages of a tiny run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distspectral.embedding.forward import forward
from distspectral.errors import ConfigError
from distspectral.graph.store import MappedGraph
from distspectral.mapping import local_map
from distspectral.spectral import polish
from distspectral.stages.distill import DISTILL
from distspectral.stages.polish import POLISH
from distspectral.storage.rows.vectors import MappedVectors
from distspectral.training.distill import load_trained_network
from tests.oracles import dense_spectrum
from tests.runs import LEARNED
from tests.stages.chain import opened, pipeline_upto

KEPT = 4


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module", params=["random_walk", "unnormalized"])
def pipeline(request, tmp_path_factory):
    spectral = {"n_components": KEPT, "oversampling": 2, "laplacian": request.param}
    folder = tmp_path_factory.mktemp(request.param)
    return pipeline_upto(folder, "calibrate", sizes=(50, 1, 30, 39), spectral=spectral)


def polished(pipeline):
    rows = MappedVectors(pipeline.chain.artifact("polish"))
    return rows.block(0, rows.n_rows).astype(float)


def test_polished_functions_are_the_exact_ones_beside_the_mass_of_each_row(pipeline):
    graph = MappedGraph(pipeline.chain.artifact("graph"))
    spectrum = dense_spectrum(graph, pipeline.config.spectral.laplacian)
    columns = polished(pipeline)
    assert columns.shape == (120, KEPT + 2), "those trained for the sake of others included"
    mass, functions = columns[:, 0], columns[:, 1:]
    np.testing.assert_allclose(mass, spectrum.mass / spectrum.mass.mean(), rtol=1e-5)
    np.testing.assert_allclose((mass[:, None] * functions**2).mean(axis=0), 1, rtol=1e-4)
    exact = np.sqrt(spectrum.mass)[:, None] * spectrum.vectors[:, :KEPT]
    ours = np.sqrt(mass / len(mass))[:, None] * np.column_stack([np.ones(len(mass)), functions[:, : KEPT - 1]])
    inside = np.square(exact.T @ ours).sum(axis=0) / np.square(exact).sum(axis=0)
    assert 1 - inside.mean() < 5e-3, "the last one may be mixed with near ones"
    found = pipeline.chain.artifact("polish").manifest()
    unit = 1.0 if pipeline.config.spectral.laplacian == "random_walk" else graph.block(0, 120)[1].sum() / 120
    np.testing.assert_allclose(found.properties["eigenvalues"][:KEPT], spectrum.values[:KEPT] / unit, atol=1e-4)
    assert found.metrics["converged"]


def test_shards_are_those_of_the_rows(pipeline):
    own, rows = (pipeline.chain.artifact(name).manifest() for name in ("polish", "pack"))
    assert [(one.name, one.n_rows) for one in own.shards] == [(one.name, one.n_rows) for one in rows.shards]


def test_the_network_learns_them(pipeline):
    rows, columns = MappedVectors(pipeline.chain.artifact("pack")), polished(pipeline)

    def left(stage):
        """Return what functions of a stage's network, combined as well as can be, leave of the polished ones."""
        made = forward(load_trained_network(pipeline.chain.artifact(stage)), rows.block(0, rows.n_rows)).astype(float)
        root = np.sqrt(columns[:, :1])
        wanted, given = root * columns[:, 1:KEPT], root * made
        return np.square(wanted - given @ np.linalg.lstsq(given, wanted, rcond=None)[0]).mean()

    assert left("distill") < 0.5 * left("train")
    metrics = pipeline.chain.artifact("distill").manifest().metrics
    assert metrics["steps"] == 40
    assert left("distill") <= metrics["loss"] * 1.5, "the last window's mean, by steps that were still learning"


def test_calibration_takes_the_network_that_learned_and_knows_what_lies_behind(pipeline):
    model, known = (pipeline.chain.artifact(name).manifest().properties for name in ("calibrate", "polish"))
    assert len(model["ritz_values"]) == KEPT + 2
    assert model["n_components"] == KEPT
    behind = np.maximum(known["eigenvalues"][KEPT:], model["ritz_values"][KEPT - 1])
    np.testing.assert_allclose(model["ritz_values"][KEPT:], behind)
    assert np.all(np.array(model["ritz_values"][:KEPT]) >= np.array(known["eigenvalues"][:KEPT]) - 1e-5)


def test_functions_are_nearer_to_the_exact_ones_than_those_of_descent_alone(tmp_path_factory):
    def certificate(**sections):
        made = pipeline_upto(tmp_path_factory.mktemp("run"), "calibrate", **sections)
        return made, made.chain.artifact("calibrate").manifest().metrics["certificate"]

    taught, ours = certificate()
    alone, theirs = certificate(distill={"enabled": False})
    assert not {"polish", "distill"} & set(alone.chain.outputs)
    assert ours["mean_sin2"] < 0.5 * theirs["mean_sin2"]
    assert taught.chain.outputs["train"].fingerprint != alone.chain.outputs["train"].fingerprint, "it is but a start"


def test_codes_and_features_are_seen_side_by_side(tmp_path):
    made = pipeline_upto(tmp_path, "calibrate", **LEARNED)
    dims = [made.chain.artifact(name).manifest().properties["dim"] for name in ("codes", "features")]
    network = load_trained_network(made.chain.artifact("distill"))
    assert len(network.perceptron.input_mean) == sum(dims)
    assert network.n_functions == KEPT


def test_a_given_graph_too_large_for_a_polish_is_refused_with_the_remedy(tmp_path, monkeypatch):
    made = pipeline_upto(tmp_path, "train")
    monkeypatch.setattr(polish, "POLISH_BYTES", 0)
    with pytest.raises(ConfigError, match=r"graph\.path: a polish of 120 rows .* set distill\.enabled: false"):
        POLISH.run(made.work("polish"))


def test_a_killed_polish_goes_on_with_the_rows_that_passed_the_network(tmp_path):
    made = pipeline_upto(tmp_path, "train")
    work, began = made.work("polish"), []

    def dying(function, items, description, *, on_gpu=False):
        if description == "polishing":
            raise Killed
        return local_map(function, items, description)

    def counting(function, items, description, *, on_gpu=False):
        began.append((description, len(items)))
        return local_map(function, items, description)

    with pytest.raises(Killed):
        POLISH.run(dataclasses.replace(work, mapper=dying))
    POLISH.run(dataclasses.replace(work, mapper=counting))
    assert ("polishing", 1) in began
    assert not [n for description, n in began if description == "encoding" and n]
    assert not made.chain.artifact("polish").child("features").exists()


@pytest.mark.parametrize(
    ("override", "distills"),
    [
        ("seed=0", True),
        ("distill.enabled=false", False),
        ("affinity.scope=batch", False),
    ],
)
def test_a_graph_that_fits_is_polished_unless_edges_are_made_in_batches(tmp_path, override, distills):
    pipeline = pipeline_upto(tmp_path, "pack")
    made = opened(tmp_path / "run.yaml", override)
    assert ("polish" in made.chain.outputs, "distill" in made.chain.outputs) == (distills, distills)
    assert pipeline.recipe.learned_by == "distill"


def test_a_graph_that_does_not_fit_is_learned_by_descent(tmp_path, monkeypatch):
    monkeypatch.setattr(polish, "POLISH_BYTES", 0)
    made = pipeline_upto(tmp_path, "calibrate")
    assert not {"polish", "distill"} & set(made.chain.outputs)
    assert made.chain.artifact("calibrate").manifest().metrics["certificate"]["method"] == "residuals"


def test_a_reader_is_told_where_rows_never_taught_fare_much_worse():
    told = {
        "steps": 300,
        "stopped_because": "",
        "rows_per_second": 1.0,
        "loss": 0.01,
        "held_out_loss": 0.015,
    }
    assert DISTILL.notes({"distill": told}) == []
    (note,) = DISTILL.notes({"distill": told | {"held_out_loss": 0.19}})
    assert "19.0%" in note
    assert "1.0%" in note
    assert "1.00% of the functions' squares" in DISTILL.lines(told)["distillation"]


def test_rows_never_taught_are_no_matter_where_clusters_hardly_follow_what_they_lack():
    told = {"steps": 300, "stopped_because": "", "rows_per_second": 1.0, "loss": 0.01, "held_out_loss": 0.15}
    noise = told | {"held_out_losses": [0.0, 0.3]}

    def notes(weights):
        return DISTILL.notes({"distill": noise, "calibrate": {"certificate": {"mean_sin2": 0.01, "weights": weights}}})

    assert notes([1.0, 1.0, 0.1]) == []
    (note,) = notes([1.0, 0.1, 1.0])
    assert "15.0% of their squares are left unexplained" in note
    bad = told | {"held_out_loss": 5.0}
    assert DISTILL.notes({"distill": bad, "n_rows": 30}) == [], "of one row"
    assert DISTILL.notes({"distill": bad, "n_rows": 3000}) != []
    assert DISTILL.notes({"distill": told | {"held_out_loss": 0.06}}) == [], "so much costs new rows nothing"
