from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from pyarrow import fs

from distspectral.calibration import sampled_sums
from distspectral.calibration.edge_sums import edge_sums
from distspectral.calibration.residuals import ResidualSample
from distspectral.calibration.rotation import MAX_TASKS, rows_per_task
from distspectral.datasets import write_vectors
from distspectral.embedding.few_rows import GatheredGraph
from distspectral.embedding.forward import forward, in_blocks
from distspectral.embedding.loading import Loader
from distspectral.graph import stratified
from distspectral.graph.store import MappedGraph
from distspectral.mapping import local_map
from distspectral.models.state import read_state, write_state
from distspectral.spectral import polish
from distspectral.stages import calibrate as calibration
from distspectral.stages.calibrate import (
    CALIBRATE,
    calibrate,
    load_calibrated_network,
)
from distspectral.stages.cluster import load_assigner
from distspectral.stages.embed import EMBED
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors
from distspectral.training.distill import load_trained_network
from tests.oracles import dense_laplacian, dense_spectrum
from tests.runs import write_run
from tests.stages.chain import opened, pipeline_upto

LAPLACIANS = ["random_walk", "unnormalized"]


def learned(folder, laplacian, **sections):
    spectral = {"n_components": 4, "oversampling": 2, "laplacian": laplacian}
    return pipeline_upto(folder, "calibrate", spectral=spectral, **sections)


@pytest.fixture(scope="module", params=LAPLACIANS)
def calibrated(request, tmp_path_factory):
    return learned(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module", params=LAPLACIANS)
def by_edges(request, tmp_path_factory):
    return learned(tmp_path_factory.mktemp(request.param), request.param, distill={"enabled": False})


@pytest.fixture(scope="module", params=[(laplacian, taught) for laplacian in LAPLACIANS for taught in (True, False)])
def either(request, tmp_path_factory):
    laplacian, taught = request.param
    return learned(tmp_path_factory.mktemp("either"), laplacian, distill={"enabled": taught})


def embedding(pipeline):
    vectors = MappedVectors(pipeline.chain.artifact("pack"))
    return forward(load_calibrated_network(pipeline.chain.artifact("calibrate")), vectors.block(0, vectors.n_rows))


def test_outputs_are_orthonormal_ordered_and_the_first_is_one(either):
    laplacian = either.config.spectral.laplacian
    graph = MappedGraph(either.chain.artifact("graph"))
    spectrum = dense_spectrum(graph, laplacian)
    f = embedding(either).astype(float)
    np.testing.assert_allclose(f.T @ (f * spectrum.mass[:, None]), np.eye(4), atol=1e-5)  # float32 outputs
    values = np.array(either.chain.artifact("calibrate").manifest().properties["ritz_values"])
    assert np.all(np.diff(values) >= 0)
    unit = 1.0 if laplacian == "random_walk" else graph.block(0, graph.n_rows)[1].sum() / graph.n_rows
    assert np.all(values * unit >= spectrum.values[: len(values)] - 1e-6), "Ritz values bound eigenvalues from above"


def test_ritz_values_are_the_rayleigh_quotients_of_the_outputs(by_edges):
    laplacian = by_edges.config.spectral.laplacian
    graph = MappedGraph(by_edges.chain.artifact("graph"))
    f = embedding(by_edges)
    sums = edge_sums(ArrayVectors(f), graph, 0, len(f), laplacian)
    values = by_edges.chain.artifact("calibrate").manifest().properties["ritz_values"][:4]
    # the energy of orthonormal Ritz functions is diagonal, with the Ritz values on it
    torch.testing.assert_close(
        sums.energy / sums.affinity, torch.diag(torch.tensor(values, dtype=torch.float64)), atol=1e-5, rtol=1e-4
    )


def test_taught_outputs_are_turned_as_near_to_the_polished_functions_as_they_come(calibrated):
    chain = calibrated.chain
    mass, exact = np.split(MappedVectors(chain.artifact("polish")).block(0, len(embedding(calibrated))), [1], axis=1)
    f, known = embedding(calibrated).astype(float), np.hstack([np.ones_like(mass), exact[:, :3]])
    moments = f.T @ (mass / len(mass) * known)
    # of all orthonormal frames of a span, the nearest one has symmetric moments without negative eigenvalues
    np.testing.assert_allclose(moments, moments.T, atol=1e-5)
    assert np.linalg.eigvalsh(moments).min() > 0
    assert np.diag(moments)[0] == pytest.approx(1, abs=1e-6)
    values = chain.artifact("calibrate").manifest().properties["ritz_values"]
    assert values == chain.artifact("polish").manifest().properties["eigenvalues"]


def test_sums_over_row_ranges_add_up_to_the_whole(calibrated):
    graph = MappedGraph(calibrated.chain.artifact("graph"))
    f = ArrayVectors(embedding(calibrated))
    whole = edge_sums(f, graph, 0, f.n_rows, "random_walk")
    parts = [edge_sums(f, graph, start, stop, "random_walk") for start, stop in ((0, 33), (33, f.n_rows))]
    both = parts[0] + parts[1]
    torch.testing.assert_close((both.energy, both.gram), (whole.energy, whole.gram), rtol=1e-10, atol=1e-12)
    assert (both.affinity, both.n_rows) == (pytest.approx(whole.affinity), f.n_rows)


def test_tasks_are_enough_for_the_cores_and_not_so_many_that_each_opens_all_shards_in_vain():
    assert rows_per_task(1_000_000) == 2**16, "16 tasks of some seconds"
    assert rows_per_task(10**9) == -(-(10**9) // MAX_TASKS)


def test_intermediate_features_are_gone_and_the_card_says_what_the_model_is(calibrated):
    artifact = calibrated.chain.artifact("calibrate")
    assert not artifact.has("features/.manifest.json")
    card = artifact.read_json("model_card.json")
    assert card["eigenvalues"] == artifact.manifest().properties["ritz_values"][:4]
    assert set(artifact.manifest().files) == {"model.pt", "model_card.json"}


def test_rows_pass_the_network_on_gpus_and_edges_are_summed_on_cpus(by_edges, tmp_path):
    asked = {}

    def mapper(function, items, description, *, on_gpu=False):
        asked[description] = on_gpu
        return local_map(function, items, description)

    inputs = (
        (by_edges.chain.artifact("pack"),),
        by_edges.chain.artifact("graph"),
        by_edges.chain.artifact("train"),
    )
    output = dataclasses.replace(by_edges.chain.outputs["calibrate"], artifact=Artifact(str(tmp_path)))
    calibrate(*inputs, output, by_edges.recipe.trainings["train"], mapper)
    assert asked == {"encoding": True, "calibrating": False, "certifying": False}


def test_the_certificate_holds_against_the_exact_functions(calibrated):
    laplacian = calibrated.config.spectral.laplacian
    spectrum = dense_spectrum(MappedGraph(calibrated.chain.artifact("graph")), laplacian)
    f, manifest = embedding(calibrated).astype(float), calibrated.chain.artifact("calibrate").manifest()
    inside = np.square(spectrum.vectors[:, :4].T @ (f * spectrum.mass[:, None])).sum(axis=0)
    certificate = manifest.metrics["certificate"]
    assert (certificate["method"], certificate["converged"]) == ("polish", True)
    assert np.all(np.array(certificate["sin2"]) >= 1 - inside - 1e-5)  # outputs are float32
    assert certificate["mean_sin2"] <= 5 * (1 - inside).mean() + 1e-5
    facts = CALIBRATE.facts(manifests_of(calibrated))
    assert CALIBRATE.lines(facts)["certificate"] == certificate["words"]


def manifests_of(pipeline):
    learned = [name for name in ("train", "polish", "distill", "calibrate") if name in pipeline.chain.outputs]
    return {name: pipeline.chain.artifact(name).manifest() for name in ("graph", *learned)}


def test_a_training_that_its_budget_ended_is_called_bad_with_the_remedy(tmp_path):
    pipeline = pipeline_upto(tmp_path, "calibrate", train={"max_steps": 2})
    manifests = manifests_of(pipeline)
    metrics = {"calibrate": CALIBRATE.facts(manifests), "train": manifests["train"].metrics}
    (note,) = (note for note in CALIBRATE.notes(metrics) if note.startswith("The learned functions are not the graph"))
    assert "Training ended by its budget of 2 steps, before a plateau; raise train.max_steps." in note


def test_the_certificate_knows_how_the_clusters_that_were_found_weigh_functions(tmp_path):
    pipeline = pipeline_upto(tmp_path, "cluster")
    manifests = manifests_of(pipeline)
    assert CALIBRATE.facts(manifests)["certificate"]["weights"] == []
    facts = CALIBRATE.facts(manifests | {"cluster": pipeline.chain.artifact("cluster").manifest()})
    assigner = load_assigner(pipeline.chain.artifact("cluster"))
    np.testing.assert_allclose(facts["certificate"]["weights"], np.square(assigner.scale.numpy()), rtol=1e-5)


def test_sampled_rows_give_the_residuals_of_all_within_their_standard_error(calibrated):
    laplacian = calibrated.config.spectral.laplacian
    graph, f = MappedGraph(calibrated.chain.artifact("graph")), ArrayVectors(embedding(calibrated))
    matrix, degree = dense_laplacian(graph)
    random_walk = laplacian == "random_walk"
    scale = degree if random_walk else np.full(len(degree), degree.mean())
    values = np.array(calibrated.chain.artifact("calibrate").manifest().properties["ritz_values"][:4])
    left = matrix @ f.block(0, f.n_rows).astype(float) / scale[:, None] - values * f.block(0, f.n_rows)
    whole = np.sqrt(np.sum(scale[:, None] / scale.sum() * left**2, axis=0))

    def sampled(rows):
        total = ResidualSample(rows, 4)
        affinity = 0.0
        for start, stop in ((0, 33), (33, f.n_rows)):  # as two tasks
            part = ResidualSample(rows, 4)
            affinity += edge_sums(f, graph, start, stop, laplacian, part.add).affinity
            total.merge(part.part())
        return total.residuals(values, np.eye(4), affinity, f.n_rows, random_walk)

    residuals, errors = sampled(np.arange(f.n_rows))
    np.testing.assert_allclose(residuals, whole, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(errors, 0)
    draws = [sampled(ResidualSample.drawn(f.n_rows, 4, seed, count=60).rows) for seed in range(40)]
    found, errors = (np.array(each)[:, 1:] for each in zip(*draws, strict=True))  # the constant has none
    within = np.abs(found - whole[1:]) <= 2 * errors
    assert within.mean() > 0.75  # 95% were the squares normal: they have long tails
    np.testing.assert_allclose(np.square(found).mean(axis=0), whole[1:] ** 2, rtol=0.25)


def test_rows_beyond_a_polish_are_judged_by_a_sample(by_edges, tmp_path, monkeypatch):
    monkeypatch.setattr(polish, "POLISH_BYTES", 0)
    inputs = (
        (by_edges.chain.artifact("pack"),),
        by_edges.chain.artifact("graph"),
        by_edges.chain.artifact("train"),
    )
    output = dataclasses.replace(by_edges.chain.outputs["calibrate"], artifact=Artifact(str(tmp_path)))
    made = calibrate(*inputs, output, by_edges.recipe.trainings["train"])
    certificate = made.metrics["certificate"]
    assert (certificate["method"], certificate["passes"], certificate["eigenvalues"]) == ("residuals", 0, [])
    polished = by_edges.chain.artifact("calibrate").manifest().metrics["certificate"]
    np.testing.assert_allclose(certificate["residuals"], polished["residuals"], rtol=1e-3, atol=1e-5)  # all rows


def test_a_polish_fits_into_the_memory_that_it_is_said_to_take():
    assert polish.can_polish(3_200_000, 23, 15)
    assert not polish.can_polish(4_000_000, 23, 15)


def test_a_network_of_dependent_functions_keeps_the_independent_ones_and_says_so(tmp_path):
    pipeline = pipeline_upto(tmp_path, "train", distill={"enabled": False})
    training = pipeline.chain.artifact("train")
    state = read_state(training, "model.pt")
    for name in ("network.perceptron.head.weight", "network.perceptron.head.bias"):
        state[name][1:] = state[name][:1]
    write_state(training, "model.pt", state)
    inputs = (pipeline.chain.artifact("pack"),), pipeline.chain.artifact("graph"), pipeline.chain.artifact("train")
    made = calibrate(*inputs, pipeline.chain.outputs["calibrate"], pipeline.recipe.trainings["train"])
    assert (made.properties["n_components"], len(made.properties["ritz_values"])) == (2, 2)
    assert embedding(pipeline).shape[1] == 2
    manifests = manifests_of(pipeline)
    metrics = {"calibrate": CALIBRATE.facts(manifests), "train": manifests["train"].metrics}
    (note,) = (note for note in CALIBRATE.notes(metrics) if note.startswith("Only"))
    assert note.startswith("Only 2 of the 6 trained functions are independent over these rows, and 2 are kept")


def test_a_run_on_rows_of_which_few_differ_finds_them_and_says_that_there_are_no_more(tmp_path):
    path = write_run(tmp_path, spectral={}, cluster={"n_clusters": 4})
    levels = np.arange(120) % 3
    write_vectors(str(tmp_path / "data"), np.eye(3, dtype=np.float32)[levels], labels=levels, sizes=(50, 30, 40))
    pipeline = opened(path)
    for name in pipeline.chain.outputs:
        pipeline.stage(name)
    manifests = {name: pipeline.chain.artifact(name).manifest() for name in pipeline.chain.outputs}
    assert manifests["calibrate"].properties["n_components"] == 3
    assert manifests["calibrate"].properties["suggested_n_clusters"] == 3
    assert manifests["embed"].metrics["agreement"]["ari"] == 1
    found = {"cluster": {"n_clusters": 4}, "embed": EMBED.facts(manifests)}
    assert [note for note in EMBED.notes(found) if note.startswith("Only 3 of the 4 clusters hold rows")]
    assert not EMBED.notes(found | {"cluster": {"n_clusters": 3}})


# ---- by sampled rows ----------------------------------------------------------------------------------------------


def by_sample(by_edges, place, monkeypatch, n_rows):
    """Return the manifest of a calibration by the edges of so many rows, which all have but for this test."""
    monkeypatch.setattr(sampled_sums, "LEAST_ROWS", n_rows)
    monkeypatch.setattr(sampled_sums, "ROWS_PER_FUNCTION", 0)
    monkeypatch.setattr(calibration, "is_sampled", lambda *_: True)
    inputs = (
        (by_edges.chain.artifact("pack"),),
        by_edges.chain.artifact("graph"),
        by_edges.chain.artifact("train"),
    )
    output = dataclasses.replace(by_edges.chain.outputs["calibrate"], artifact=Artifact(str(place)))
    return calibrate(*inputs, output, by_edges.recipe.trainings["train"])


def test_a_sample_of_all_rows_gives_what_all_edges_give(by_edges, tmp_path, monkeypatch):
    n_rows = by_edges.chain.artifact("graph").manifest().n_rows
    made, exact = by_sample(by_edges, tmp_path, monkeypatch, n_rows), by_edges.chain.artifact("calibrate").manifest()
    np.testing.assert_allclose(made.properties["ritz_values"], exact.properties["ritz_values"], rtol=1e-5, atol=1e-8)
    found, known = made.metrics["certificate"], exact.metrics["certificate"]
    np.testing.assert_allclose(found["residuals"], known["residuals"], rtol=1e-3, atol=1e-5)
    rows = MappedVectors(by_edges.chain.artifact("pack")).block(0, n_rows)
    np.testing.assert_allclose(
        forward(load_calibrated_network(Artifact(str(tmp_path))), rows), embedding(by_edges), rtol=1e-3, atol=1e-4
    )
    assert made.metrics["sampled_rows"] == n_rows
    assert not list(tmp_path.glob("ends*")), "what passed the network is gone"


def test_a_sample_in_object_storage_gives_the_same_and_leaves_nothing_behind(by_edges, tmp_path, monkeypatch, s3):
    place = s3.uri(f"sampled-{by_edges.config.spectral.laplacian}")
    made, known = (by_sample(by_edges, one, monkeypatch, 60) for one in (place, tmp_path))
    assert made.properties == known.properties
    assert made.metrics["certificate"] == known.metrics["certificate"]
    left = {path.name for path in tmp_path.iterdir()}
    remote = Artifact(place)
    found = remote.filesystem.get_file_info(fs.FileSelector(remote.path, recursive=True))
    assert {info.base_name for info in found if info.is_file} <= left


def test_ritz_values_of_a_sample_lie_within_their_standard_errors(by_edges, tmp_path, monkeypatch):
    monkeypatch.setattr(sampled_sums, "N_BLOCKS", 12)
    exact = np.array(by_edges.chain.artifact("calibrate").manifest().properties["ritz_values"])
    found, errors = [], []
    for seed in range(30):
        monkeypatch.setattr(stratified, "SEED", seed)
        made = by_sample(by_edges, tmp_path / str(seed), monkeypatch, 60)
        found.append(made.properties["ritz_values"][1:4])
        errors.append(made.metrics["ritz_errors"][1:4])
    off = np.abs(np.array(found) - exact[1:4])
    assert (off <= 2 * np.array(errors)).mean() > 0.6, "as errors of blocks of five rows tell"
    assert np.median(off / np.array(errors)) > 0.3, "they do not tell of more either"
    assert made.metrics["sampled_rows"] == 60
    facts = CALIBRATE.facts(manifests_of(by_edges) | {"calibrate": made})
    assert CALIBRATE.lines(facts)["calibrated by"].startswith("the edges of 60 rows; standard errors up to 0.")


def test_all_edges_are_summed_where_a_sample_of_them_would_not_be_cheaper():
    assert not sampled_sums.is_sampled(8_000_000, 45, 15)
    assert sampled_sums.is_sampled(9_000_000, 45, 15)
    assert not sampled_sums.is_sampled(20_000_000, 1500, 15)
    assert sampled_sums.is_sampled(10**9, 1500, 15)


def test_some_of_the_sampled_rows_are_judged_with_all_their_edges(by_edges, tmp_path, monkeypatch):
    monkeypatch.setattr(sampled_sums, "LEAST_ROWS", 90)
    monkeypatch.setattr(sampled_sums, "ROWS_PER_FUNCTION", 0)
    monkeypatch.setattr(sampled_sums, "SAMPLE_ROWS", 25)
    chain, laplacian = by_edges.chain, by_edges.config.spectral.laplacian
    training, graph = chain.artifact("train"), chain.artifact("graph")
    loader = Loader((str(tmp_path),), functools.partial(load_trained_network, training))
    vectors, n_functions = (chain.artifact("pack"),), training.manifest().properties["n_functions"]
    edges, scratch = GatheredGraph(graph, local_map), Artifact(str(tmp_path))
    found = sampled_sums.sampled_sums(vectors, loader, edges, scratch, n_functions, laplacian, local_map)
    rows = stratified.StratifiedRows(edges.n_rows, 90).rows[::4]
    functions = ArrayVectors(in_blocks(loader.load(), MappedVectors(vectors[0])))
    known = ResidualSample(rows, n_functions)
    edge_sums(functions, MappedGraph(graph), 0, edges.n_rows, laplacian, known.add)
    np.testing.assert_array_equal(found.residuals.rows, rows)
    for name in ("values", "images", "degree"):
        np.testing.assert_allclose(getattr(found.residuals, name), getattr(known, name), rtol=1e-5, atol=1e-6)
    assert (found.n_rows, sum(block.n_rows for block in found.blocks)) == (90, 90)
