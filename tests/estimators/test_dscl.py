"""DSCL: scikit-learn's own checks, and a metric that holds for classes it never saw."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances
from sklearn.utils.estimator_checks import parametrize_with_checks

from distspectral import DSCL
from distspectral.errors import ConfigError, DamagedArtifactError, MissingArtifactError, TooFewClassesError

SMALL = {"hidden": (32,), "batch_size": 128, "max_steps": 150, "random_state": 0}


@parametrize_with_checks([DSCL(**SMALL | {"hidden": (8,), "max_steps": 10})])
def test_keeps_scikit_learns_contract(estimator, check):
    check(estimator)


def recall_at_1(points: np.ndarray, labels: np.ndarray) -> float:
    distances = pairwise_distances(points, metric="cosine")
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())


@pytest.fixture(scope="module")
def noisy():
    """Forty classes in six features, beside twelve features of noise that a metric must learn to look past."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 20)
    signal = 2 * rng.standard_normal((40, 6))[y] + 0.5 * rng.standard_normal((len(y), 6))
    return np.hstack([signal, 5 * rng.standard_normal((len(y), 12))]).astype(np.float32), y


@pytest.fixture(scope="module")
def fitted(noisy):
    X, y = noisy
    return DSCL(n_components=12, **SMALL | {"max_steps": 300}).fit(X[y < 30], y[y < 30])


def test_classes_never_seen_are_told_apart_better_than_before(noisy, fitted):
    X, y = noisy
    unseen = y >= 30
    before, after = recall_at_1(X[unseen] - X.mean(0), y[unseen]), recall_at_1(fitted.transform(X[unseen]), y[unseen])
    assert before < 0.4
    assert after > 0.9, f"{before:.3f} before, {after:.3f} after"


def test_the_softmax_tells_unseen_classes_apart_too(noisy):
    X, y = noisy
    model = DSCL(n_components=12, loss="softmax", **SMALL | {"max_steps": 300}).fit(X[y < 30], y[y < 30])
    assert recall_at_1(model.transform(X[y >= 30]), y[y >= 30]) > 0.9


def test_the_loss_falls_and_is_told(fitted):
    losses = [record["loss"] for record in fitted.history_]
    assert losses[-1] < 0.6 * losses[0]
    assert all(0 <= loss <= record["classes_per_step"] for loss, record in zip(losses, fitted.history_, strict=True))


def test_labels_may_be_strings_and_are_names_only(noisy, fitted):
    X, y = noisy
    X, y = X[y < 30], y[y < 30]
    names = np.array([f"class {number:02d}" for number in range(30)])
    named = DSCL(n_components=12, **SMALL | {"max_steps": 300}).fit(X, names[y])
    assert named.classes_.tolist() == names.tolist()
    np.testing.assert_array_equal(named.transform(X[:20]), fitted.transform(X[:20]))


def test_width_follows_the_classes_of_a_batch_unless_given(noisy):
    X, y = noisy
    model = DSCL(**SMALL | {"max_steps": 2}).fit(X, y)
    assert model.transform(X[:3]).shape == (3, model.n_components_) == (3, 16)
    assert DSCL(n_components=7, **SMALL | {"max_steps": 2}).fit(X, y).n_components_ == 7


def test_a_trunk_takes_the_place_of_the_perceptron(noisy):
    X, y = noisy
    options = {"image_shape": [2, 3, 3], "channels": [8]}
    model = DSCL(trunk="distspectral.models.trunks:conv_trunk", trunk_options=options, **SMALL | {"max_steps": 2})
    model.fit(X, y)
    assert any(isinstance(module, torch.nn.Conv2d) for module in model.model_.modules())


def test_saved_model_gives_the_same_numbers_in_a_fresh_process(noisy, fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    np.save(tmp_path / "rows.npy", noisy[0][:50])
    code = (
        "import numpy as np, sys; from distspectral import DSCL\n"
        f"model = DSCL.load(r'{tmp_path}/model.pt'); X = np.load(r'{tmp_path}/rows.npy')\n"
        f"np.save(r'{tmp_path}/out.npy', model.transform(X)); assert model.classes_.tolist() == list(range(30))\n"
        "assert 'ray' not in sys.modules, 'the estimator imported Ray'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    expected = fitted.transform(noisy[0][:50])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-5, atol=1e-6)  # threads may differ
    loaded = DSCL.load(tmp_path / "model.pt")
    assert loaded.get_params() == fitted.get_params()
    assert loaded.history_ == fitted.history_


def test_load_names_what_is_wrong_with_the_file(tmp_path):
    for absent in ("nothing.pt", "."):
        with pytest.raises(MissingArtifactError, match="there is no such file"):
            DSCL.load(tmp_path / absent)
    (tmp_path / "broken.pt").write_bytes(b"no model")
    with pytest.raises(DamagedArtifactError, match=r"broken\.pt: is no file of save\(\)"):
        DSCL.load(tmp_path / "broken.pt")


def test_one_class_is_refused(noisy):
    with pytest.raises(TooFewClassesError, match="at least 2"):
        DSCL(**SMALL).fit(noisy[0], np.zeros(len(noisy[0]), dtype=int))


def test_an_embedding_as_wide_as_a_batch_is_refused(noisy):
    with pytest.raises(ConfigError, match="n_components: is 128, but a batch can hold as few as 128 rows"):
        DSCL(n_components=128, **SMALL).fit(*noisy)


@pytest.mark.parametrize("change", [{"n_components": 0}, {"rows_per_class": 1}, {"max_steps": 0}, {"hidden": ()}])
def test_bad_parameters_are_value_errors_that_name_the_parameter(change, noisy):
    with pytest.raises(ValueError, match=next(iter(change))) as caught:
        DSCL(**SMALL | change).fit(*noisy)
    assert isinstance(caught.value, ConfigError)


def test_verbose_prints_a_line_per_window(noisy, capsys):
    DSCL(**SMALL | {"verbose": True, "max_steps": 50}).fit(*noisy)
    assert "step     50  loss" in capsys.readouterr().out


def test_a_saved_model_is_the_network_that_was_fitted_whatever_parameters_were_set_since(noisy, tmp_path):
    rows, labels = noisy
    model = DSCL(**SMALL | {"max_steps": 10}).fit(rows, labels)
    model.set_params(hidden=(8, 8), trunk_options={"any": 1})
    model.save(tmp_path / "model.pt")
    np.testing.assert_array_equal(DSCL.load(tmp_path / "model.pt").transform(rows), model.transform(rows))


@pytest.mark.parametrize("loss", ["projector", "softmax"])
def test_labels_by_which_no_two_rows_are_alike_are_refused(noisy, loss):
    rows = noisy[0][:30]
    with pytest.raises(TooFewClassesError, match="y: no two of 30 rows have one label"):
        DSCL(**SMALL, loss=loss).fit(rows, [f"id-{number}" for number in range(30)])


def test_a_gpu_that_is_not_there_is_named_with_the_way_out(noisy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device: is cuda, but torch finds no GPU.*set_params\(device='auto'\)"):
        DSCL(**SMALL, device="cuda").fit(*noisy)
