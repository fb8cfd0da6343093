from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from distspectral.report.data import Pictures
from distspectral.report.pictures import Look, as_png, picture_look, pictures, row_pictures
from distspectral.storage.rows.vectors import ArrayVectors


def tones(found: Pictures) -> NDArray[np.uint8]:
    raw = zlib.decompress(base64.b64decode(found.data))
    return np.frombuffer(raw, np.uint8).reshape(-1, found.height, found.width)


@pytest.fixture(scope="module")
def digits() -> NDArray[np.float64]:
    return load_digits().data / 16


def test_digits_are_pictures_of_eight_pixels(digits: NDArray[np.float64]) -> None:
    vectors = ArrayVectors(digits)
    look = picture_look(vectors)
    assert look == Look(8, 8, 0.0, 1.0)
    found = tones(pictures(vectors, look, np.array([5, 0])))
    assert found.shape == (2, 8, 8)
    assert np.abs(found[1] / 255 - digits[0].reshape(8, 8)).max() <= 1 / 30


def test_what_is_no_square_has_many_values_or_no_neighbourhoods_is_no_picture(digits: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(0)
    assert picture_look(ArrayVectors(digits[:, :60])) is None
    assert picture_look(ArrayVectors(digits + 0.01 * rng.random(digits.shape))) is None
    assert picture_look(ArrayVectors(digits[:, rng.permutation(64)])) is None
    assert picture_look(ArrayVectors(np.zeros((10, 64)))) is None


def test_large_pictures_are_averaged_down() -> None:
    rows = np.kron(np.eye(5), np.ones((21, 21))).reshape(1, -1)
    found = tones(pictures(ArrayVectors(rows), Look(105, 105, 0.0, 1.0), np.array([0])))
    assert found.shape == (1, 27, 27)
    assert found[0, 0, 0] == 255
    assert found[0, 0, -1] == 0
    assert set(np.unique(found)) <= set(range(0, 256, 17))


def test_pictures_of_rows_fit_their_budget_by_fewer_pixels_then_by_fewer_rows(digits: NDArray[np.float64]) -> None:
    vectors = ArrayVectors(np.kron(digits.reshape(-1, 8, 8), np.ones((4, 4))).reshape(len(digits), -1))
    look, rows = Look(32, 32, 0.0, 1.0), np.arange(len(digits))
    whole = row_pictures(vectors, look, rows)
    assert whole is not None
    assert (whole.step, whole.width) == (1, 32)
    fewer = row_pictures(vectors, look, rows, budget=len(whole.data) // 4)
    assert fewer is not None
    assert fewer.width < 32
    assert len(fewer.data) <= len(whole.data) // 4
    few = row_pictures(vectors, look, rows, budget=20_000)
    assert few is not None
    assert few.step > 1
    assert len(tones(few)) == -(-len(digits) // few.step)
    assert row_pictures(vectors, look, rows, budget=10) is None


def test_a_shape_makes_pictures_of_floats_and_colours_wherever_the_channels_lie() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((7, 6, 9, 3)).astype(np.float32)
    for shape, rows in (((6, 9, 3), images), ((3, 6, 9), np.moveaxis(images, 3, 1))):
        vectors = ArrayVectors(np.ascontiguousarray(rows).reshape(7, -1))
        look = picture_look(vectors, shape)
        assert look is not None
        assert (look.height, look.width, look.channels) == (6, 9, 3)
        found = pictures(vectors, look, np.array([4, 2]))
        seen = np.frombuffer(zlib.decompress(base64.b64decode(found.data)), np.uint8).reshape(2, 6, 9, 3)
        assert np.abs(seen[0] / 255 - images[4]).max() < 0.05
        assert as_png(vectors, look, 4).startswith("data:image/png;base64,")
    grey = ArrayVectors(images[..., 0].reshape(7, -1))
    assert picture_look(grey) is None
    look = picture_look(grey, (6, 9))
    assert look is not None
    assert tones(pictures(grey, look, np.array([1]), side=3)).shape == (1, 2, 3)


def test_means_of_pixels_are_those_of_the_pixels_there_are() -> None:
    vectors = ArrayVectors(np.arange(15, dtype=np.float32)[None])
    look = picture_look(vectors, (3, 5))
    assert look is not None
    mean = np.array([[3, 5, 6.5], [10.5, 12.5, 14]]) / 14
    found = tones(pictures(vectors, look, np.array([0]), side=3))[0]
    assert np.abs(found / 255 - mean).max() <= 1 / 30
