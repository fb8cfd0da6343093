from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from distspectral import SpectralNet
from distspectral.config import check, load_config
from distspectral.embedding.pca import principal_components
from distspectral.errors import ConfigError
from distspectral.models.state import read_state
from distspectral.stages.calibrate import load_calibrated_network
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors
from distspectral.storage.source.dataset import Source
from tests.datasets import blobs
from tests.runs import DIM, N_ROWS, write_run
from tests.stages.chain import pipeline_upto

PCA = {"representation": "pca", "pca": {"n_components": 3}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return pipeline_upto(tmp_path_factory.mktemp("pca"), "embed", **PCA)


def test_codes_are_the_components_that_rows_in_memory_have(run):
    codes = run.chain.artifact("codes")
    rows = MappedVectors(run.chain.artifact("pack")).block(0, N_ROWS)
    model = principal_components(ArrayVectors(rows), 3)
    expected = model.encoder(model.encoder.input_mean.new_tensor(rows)).detach().numpy()
    np.testing.assert_allclose(MappedVectors(codes).block(0, N_ROWS), expected, atol=1e-5)
    centred = rows - rows.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    kept = codes.manifest().properties["explained_variance"]  # judged by one row in twenty
    assert kept == pytest.approx(values[:3].sum() / values.sum(), abs=0.15)


def test_the_projection_is_part_of_the_model(run):
    network = load_calibrated_network(run.chain.artifact("calibrate"))
    assert network.inputs == ("code",)
    assert (network.dim, len(network.encoder.trunk)) == (DIM, 0)
    assert run.chain.artifact("embed").manifest().metrics["agreement"]["acc"] > 0.95


def test_a_run_of_more_rows_takes_the_components_of_the_run_before(run, tmp_path):
    again = {"start_from": run.config.root, "sizes": (50, 30, 20, 20)}
    later = pipeline_upto(tmp_path / "later", "codes", **again, **PCA)
    before, found = (read_state(one.chain.artifact("pca"), "model.pt") for one in (run, later))
    assert all(found[name].equal(value) for name, value in before.items())
    assert later.chain.outputs["pca"].fingerprint != run.chain.outputs["pca"].fingerprint
    config = load_config(
        write_run(tmp_path / "fewer", start_from=run.config.root, **PCA | {"pca": {"n_components": 2}})
    )
    with pytest.raises(ConfigError, match=r"pca has n_components = 3, this run 2"):
        check(config, Source.open(config.data))


def test_the_estimator_searches_components():
    rows, labels = blobs(200, DIM)
    wide = rows @ np.random.default_rng(0).standard_normal((DIM, 70))
    model = SpectralNet(
        3, representation="pca", affinity_space="euclidean", hidden=(16,), max_steps=60, random_state=0
    ).fit(wide)
    assert model.graph_["explained_variance"] == pytest.approx(1, abs=1e-4)
    assert model.model_.network.inputs == ("code",)
    assert len(model.model_.network.encoder.head.weight) == 50
    assert adjusted_rand_score(labels, model.labels_) > 0.95
    np.testing.assert_array_equal(model.predict(wide), model.labels_)
