"""The estimator: scikit-learn's own checks, and what its users rely on beyond them."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from distspectral import SpectralNet
from distspectral.datasets import two_moons
from distspectral.errors import (
    ConfigError,
    ConstantDataError,
    DamagedArtifactError,
    MissingArtifactError,
    TooManyClustersError,
)
from distspectral.estimators import eigenfunctions
from distspectral.recipes import SpectralRecipe
from distspectral.spectral import polish
from tests.datasets import ring_and_blobs

PLAIN = {"representation": "input", "affinity_space": "euclidean"}
SMALL = {"n_clusters": 3, "hidden": (32,), "batch_size": 256, "max_steps": 100, "random_state": 0} | PLAIN


@pytest.mark.filterwarnings("ignore:n_clusters:sklearn.exceptions.ConvergenceWarning")  # some ask for n_components=1
@parametrize_with_checks([SpectralNet(**SMALL | {"n_clusters": 4, "max_steps": 10})])
def test_keeps_scikit_learns_contract(estimator, check):
    # None is expected to fail. scikit-learn itself skips the array-API check unless SCIPY_ARRAY_API is set.
    check(estimator)


@pytest.fixture(scope="module")
def rows():
    return make_blobs(600, n_features=5, centers=3, cluster_std=0.8, random_state=1)


@pytest.fixture(scope="module")
def fitted(rows):
    return SpectralNet(n_neighbors=40, **SMALL).fit(rows[0])


def test_exemplars_are_nearest_to_their_centroid_or_least_apart_from_the_next(fitted):
    for wrong in (0, -1, "2", True):
        with pytest.raises(ConfigError, match="n_rows: expected an integer of at least 1"):
            fitted.exemplars(wrong)
    central, border = fitted.exemplars(4)
    points = fitted._model.assigner.coordinates(torch.from_numpy(fitted.embedding_)).numpy()
    distances = np.linalg.norm(points[:, None] - fitted.cluster_centers_[None], axis=2)
    near, second = np.sort(distances, axis=1)[:, :2].T
    for cluster in range(3):
        own = np.flatnonzero(fitted.labels_ == cluster)
        for found, values in ((central, near), (border, second - near)):
            assert len(found[cluster]) == 4
            assert set(found[cluster]) <= set(own)
            # distances near zero lose digits in |p|^2 - 2 p c + |c|^2
            np.testing.assert_allclose(values[found[cluster]], np.sort(values[own])[:4], atol=2e-3)
    alone = SpectralNet(**SMALL | {"n_clusters": 1}).fit(np.random.default_rng(0).standard_normal((60, 5)))
    assert [len(found[0]) for found in alone.exemplars(4)] == [4, 0]


def test_defaults_separate_two_moons():
    X, y = two_moons(1000, noise=0.05, seed=0)
    assert adjusted_rand_score(y, SpectralNet(n_clusters=2, max_steps=150, random_state=0).fit_predict(X)) > 0.99


@pytest.mark.parametrize(("on_ring", "in_blob"), [(300, 20), (400, 40)])
def test_separate_parts_of_uneven_size_are_the_clusters(on_ring, in_blob):
    X, y = ring_and_blobs(on_ring, in_blob)
    model = SpectralNet(**SMALL | {"hidden": (64, 32), "max_steps": 150}).fit(X)
    assert model.graph_["components"] == 3
    assert adjusted_rand_score(y, model.labels_) == 1
    np.testing.assert_array_equal(model.predict(X), model.labels_)


@pytest.fixture(scope="module")
def coded(rows):
    """Blobs hidden in 40 features, in codes with Siamese affinities."""
    wide = rows[0] @ np.random.default_rng(0).standard_normal((5, 40))
    asked = SMALL | {"representation": "auto", "affinity_space": "siamese"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distspectral.recipes.spectral_spaces.CODED_ROWS", 100)
        return wide, SpectralNet(n_neighbors=40, **asked).fit(wide)


def test_codes_are_taken_where_they_keep_the_variance(rows, coded):
    wide, model = coded
    assert model.graph_["explained_variance"] > 0.9, "five features hold everything"
    assert model.model_.network.inputs == ("code", "siamese")
    assert adjusted_rand_score(rows[1], model.labels_) > 0.99
    np.testing.assert_array_equal(model.predict(wide), model.labels_)


def test_few_rows_make_no_codes(rows, coded):
    model = SpectralNet(**SMALL | {"representation": "auto", "max_steps": 20}).fit(coded[0])
    assert "explained_variance" not in model.graph_
    assert model.model_.network.inputs == ("vector",)


def test_rows_that_codes_cannot_hold_are_clustered_as_they_are(monkeypatch):
    monkeypatch.setattr("distspectral.recipes.spectral_spaces.CODED_ROWS", 100)
    X = np.random.default_rng(0).standard_normal((200, 60))
    model = SpectralNet(**SMALL | {"representation": "auto", "max_steps": 20}).fit(X)
    assert model.graph_["explained_variance"] < 0.5, "independent features"
    assert model.model_.network.inputs == ("vector",)


def test_narrow_rows_train_no_autoencoder(fitted, rows):
    assert "explained_variance" not in SpectralNet(**SMALL | {"representation": "auto"}).fit(rows[0]).graph_


def test_a_coded_model_is_saved_whole(coded, tmp_path):
    wide, model = coded
    model.save(tmp_path / "model.pt")
    restored = SpectralNet.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(restored.transform(wide), model.embedding_[:, 1:])
    assert restored.n_features_in_ == 40
    assert restored.get_params() == model.get_params()


def test_sparse_rows_give_what_dense_rows_give(rows):
    X = np.where(np.abs(rows[0]) > 1, rows[0], 0)
    dense, model = (SpectralNet(**SMALL).fit(matrix) for matrix in (X, sparse.csr_matrix(X)))
    np.testing.assert_allclose(model.eigenvalues_, dense.eigenvalues_, atol=1e-4)
    assert adjusted_rand_score(dense.labels_, model.labels_) > 0.99
    np.testing.assert_array_equal(model.predict(X[:9]), model.predict(sparse.csr_matrix(X[:9])))


def test_finds_blobs(rows, fitted):
    assert adjusted_rand_score(rows[1], fitted.labels_) > 0.99


def test_embedding_is_orthonormal_and_ordered_with_the_constant_first():
    # Rows overlap, so that the graph is connected; equal weights, so that the plain Gram is the identity.
    X, _ = make_blobs(500, n_features=4, centers=3, cluster_std=4.0, random_state=0)
    model = SpectralNet(laplacian="unnormalized", **SMALL).fit(X)
    gram = model.embedding_.astype(float).T @ model.embedding_ / len(X)
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)  # float32 rounding of the folded layer
    np.testing.assert_allclose(model.embedding_[:, 0], 1.0, atol=1e-6)
    assert model.eigenvalues_[0] == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff(model.eigenvalues_) >= 0)


def test_a_good_fit_is_certified(rows):
    fitted = SpectralNet(n_components=3, n_neighbors=40, **SMALL).fit(rows[0])
    certificate = fitted.certificate_
    assert (certificate["method"], certificate["verdict"]) == ("polish", "good"), certificate["words"]
    assert len(certificate["sin2"]) == fitted.embedding_.shape[1]
    np.testing.assert_allclose(certificate["eigenvalues"][:3], fitted.eigenvalues_[:3], atol=0.01)


def test_a_fit_cut_short_warns_and_names_the_remedy():
    X, _ = load_digits(return_X_y=True)
    words = "The learned functions are not the graph's.*budget of 20 steps, before a plateau; raise max_steps"
    model = SpectralNet(10, random_state=0, max_steps=20, hidden=(4,), **PLAIN)
    for fit in (model.fit, model.fit_transform):
        with pytest.warns(ConvergenceWarning, match=words) as told:
            fit(X[:600])
        assert {warning.filename for warning in told} == {__file__}, "the line to change is the caller's"
    assert model.certificate_["verdict"] == "bad"


def test_blobs_apart_are_no_reason_to_doubt(caplog):
    rows, _ = make_blobs(400, 6, centers=4, cluster_std=0.5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SpectralNet(n_components=12, hidden=(64, 64), random_state=0).fit(rows)
    assert model.graph_["components"] == len(np.unique(model.labels_)) == 4
    assert (caplog.records, model.certificate_["verdict"]) == ([], "good")
    assert model.certificate_["weights"][:4] == pytest.approx([1] * 4)
    assert model.certificate_["weights"][4] == pytest.approx(0.25)
    mixed = SpectralNet(2, n_components=12, hidden=(64, 64), max_steps=150, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixed.fit(rows)
    (told,) = (record.getMessage() for record in caplog.records)
    assert "4 components that no edge joins" in told
    assert "Raise n_neighbors or set connect to nearest" in told


def test_more_rows_than_are_polished_are_certified_by_a_sample(rows, monkeypatch):
    monkeypatch.setattr(SpectralRecipe, "distills", property(lambda self: False))
    whole = SpectralNet(n_neighbors=40, **SMALL).fit(rows[0]).certificate_
    monkeypatch.setattr(eigenfunctions, "can_polish", lambda *_: False)
    found = SpectralNet(n_neighbors=40, **SMALL).fit(rows[0]).certificate_
    assert (whole["method"], found["method"]) == ("polish", "residuals")
    np.testing.assert_allclose(found["residuals"], whole["residuals"], rtol=1e-3, atol=1e-5)


def test_more_rows_than_are_polished_are_learned_by_descent_alone(fitted, rows, monkeypatch):
    windows = []
    monkeypatch.setattr(polish, "POLISH_BYTES", 0)
    alone = SpectralNet(n_neighbors=40, **SMALL).fit(rows[0], on_window=windows.append)
    assert {window["training"] for window in windows} == {"train"}
    assert np.mean(fitted.certificate_["residuals"][:3]) < np.mean(alone.certificate_["residuals"][:3])
    assert adjusted_rand_score(alone.labels_, fitted.labels_) == 1


def test_predict_never_refits(rows, fitted):
    np.testing.assert_array_equal(fitted.predict(rows[0]), fitted.labels_)
    alone = np.concatenate([fitted.predict(rows[0][i : i + 1]) for i in range(40)])
    np.testing.assert_array_equal(alone, fitted.labels_[:40])


def test_one_row_is_embedded_as_in_company(rows, fitted):
    np.testing.assert_allclose(fitted.transform(rows[0][7:8])[0], fitted.embedding_[7, 1:], rtol=1e-4, atol=1e-5)


def test_same_seed_gives_the_same_result(rows, fitted):
    again = SpectralNet(n_neighbors=40, **SMALL).fit(rows[0])
    np.testing.assert_array_equal(again.embedding_, fitted.embedding_)
    np.testing.assert_array_equal(again.labels_, fitted.labels_)


def test_the_callers_array_and_random_state_are_left_alone(rows):
    X = rows[0].astype(np.float32)
    before, torch_state = X.copy(), torch.random.get_rng_state()
    SpectralNet(**SMALL | {"max_steps": 5}).fit(X)
    np.testing.assert_array_equal(X, before)
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_auto_finds_the_number_of_separate_blobs():
    X, _ = make_blobs(400, n_features=4, centers=4, cluster_std=1.0, center_box=(-12, 12), random_state=3)
    model = SpectralNet(**SMALL | {"n_clusters": "auto", "n_neighbors": 60, "max_steps": 300}).fit(X)
    assert model.n_clusters_ == 4


def test_saved_model_gives_the_same_numbers_in_a_fresh_process(rows, fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    np.save(tmp_path / "rows.npy", rows[0])
    code = (
        "import numpy as np, sys; from distspectral import SpectralNet\n"
        f"model = SpectralNet.load(r'{tmp_path}/model.pt'); X = np.load(r'{tmp_path}/rows.npy')\n"
        f"np.savez(r'{tmp_path}/out.npz', e=model.transform(X), p=model.predict(X), l=model.labels_)\n"
        "assert 'ray' not in sys.modules, 'the estimator imported Ray'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(out["e"], fitted.embedding_[:, 1:], rtol=1e-5, atol=1e-6)  # thread counts may differ
    np.testing.assert_array_equal(out["p"], fitted.labels_)
    np.testing.assert_array_equal(out["l"], fitted.labels_)


def test_loaded_model_keeps_parameters_and_attributes(fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    loaded = SpectralNet.load(tmp_path / "model.pt")
    assert loaded.get_params() == fitted.get_params()
    for name in ("eigenvalues_", "cluster_centers_", "embedding_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))
    assert (loaded.n_features_in_, loaded.n_clusters_) == (fitted.n_features_in_, fitted.n_clusters_)
    assert loaded.history_ == fitted.history_


def test_loaded_model_keeps_the_clusters_variance(fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    squared = torch.tensor([[0.1, 0.2, 0.4]])
    assigners = [model.model_.assigner for model in (fitted, SpectralNet.load(tmp_path / "model.pt"))]
    assert assigners[0].variance == assigners[1].variance > 0
    assert torch.equal(*(assigner.probabilities(squared) for assigner in assigners))


def test_load_names_what_is_wrong_with_the_file(tmp_path):
    with pytest.raises(MissingArtifactError, match=r"nothing\.pt"):
        SpectralNet.load(tmp_path / "nothing.pt")
    (tmp_path / "broken.pt").write_bytes(b"no model")
    with pytest.raises(DamagedArtifactError, match=r"broken\.pt"):
        SpectralNet.load(tmp_path / "broken.pt")


def test_more_clusters_than_rows_are_refused():
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(TooManyClustersError, match="21"):
        SpectralNet(**SMALL | {"n_clusters": 21}).fit(X)


def test_equal_rows_are_refused():
    with pytest.raises(ConstantDataError):
        SpectralNet(**SMALL).fit(np.ones((30, 4)))


@pytest.mark.parametrize("change", [{"affinity": "cosine"}, {"n_clusters": 0}, {"hidden": ()}, {"max_steps": 0}])
def test_bad_parameters_are_value_errors_that_name_the_parameter(change, rows):
    with pytest.raises(ValueError, match=next(iter(change))) as caught:
        SpectralNet(**SMALL | change).fit(rows[0])
    assert isinstance(caught.value, ConfigError)


def test_verbose_prints_a_line_per_window(rows, capsys):
    SpectralNet(**SMALL | {"verbose": True}).fit(rows[0])
    assert "step    100" in capsys.readouterr().out
