"""The map that an estimator draws after the fit, for rows that it has seen and rows that it has not."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from distspectral import SpectralNet
from distspectral.errors import MissingArtifactError
from tests.datasets import blobs
from tests.estimators.brief import SPECTRAL


def fitted() -> SpectralNet:
    return SpectralNet(**SPECTRAL | {"max_steps": 60}).fit(blobs(150, 6)[0])


@pytest.fixture(scope="module")
def drawn() -> SpectralNet:
    model = fitted()
    model.map()
    return model


def test_clusters_lie_apart_on_the_map(drawn: SpectralNet) -> None:
    places, labels = drawn.map(), drawn.labels_
    assert places.shape == (150, 2)
    assert places.dtype == np.float32
    centres = np.stack([places[labels == cluster].mean(0) for cluster in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.95


def test_rows_get_the_places_that_they_had_and_new_ones_one_of_their_own(drawn: SpectralNet) -> None:
    rows = blobs(150, 6)[0]
    np.testing.assert_allclose(drawn.map(rows), drawn.map(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(drawn.map(sparse.csr_matrix(rows[:7])), drawn.map()[:7], rtol=1e-3, atol=1e-3)
    new = drawn.map(rows[:5] + np.float32(0.01))
    assert np.abs(new - drawn.map()[:5]).max() < 1


def test_it_is_drawn_once_and_anew_after_another_fit(drawn: SpectralNet) -> None:
    assert drawn.map() is drawn.map()
    other = copy.deepcopy(drawn)
    other.fit(blobs(90, 6)[0])
    assert not hasattr(other, "map_")
    assert other.map().shape == (90, 2)


def test_the_fit_is_the_same_whether_a_map_is_drawn_or_not(drawn: SpectralNet) -> None:
    without = fitted()
    np.testing.assert_array_equal(without.embedding_, drawn.embedding_)
    np.testing.assert_array_equal(without.labels_, drawn.labels_)
    np.testing.assert_array_equal(without.map(), drawn.map())
    assert all(parameter.requires_grad for parameter in without._model.network.perceptron.parameters())


def test_the_picture_is_the_map_once_it_is_drawn(drawn: SpectralNet) -> None:
    np.testing.assert_array_equal(drawn.plot(ax=Figure().subplots()).collections[0].get_offsets(), drawn.map())


def test_files_and_pickles_hold_the_map(drawn: SpectralNet, tmp_path: Path) -> None:
    drawn.save(tmp_path / "model.pt")
    rows = blobs(150, 6)[0]
    for found in (SpectralNet.load(tmp_path / "model.pt"), pickle.loads(pickle.dumps(drawn))):
        np.testing.assert_array_equal(found.map(), drawn.map())
        np.testing.assert_array_equal(found.map(rows), drawn.map(rows))


def test_what_was_saved_before_has_no_rows_to_draw_one_of(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "model.pt")
    for found in (SpectralNet.load(tmp_path / "model.pt"), pickle.loads(pickle.dumps(model))):
        with pytest.raises(MissingArtifactError, match=r"SpectralNet: was saved or copied before its map was drawn"):
            found.map()
    assert model.map().shape == (150, 2), "a copy takes nothing away"
    with pytest.raises(NotFittedError):
        clone(model).map()
