from __future__ import annotations

import numpy as np

from distspectral.storage.rows.joined import JoinedVectors, open_vectors
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors
from tests.datasets import packed


def test_parts_lie_side_by_side_each_with_its_own_scale():
    rng = np.random.default_rng(0)
    left, right = (
        rng.standard_normal((20, 3)).astype(np.float32),
        50 + 7 * rng.standard_normal((20, 2)).astype(np.float32),
    )
    joined = JoinedVectors([ArrayVectors(left), ArrayVectors(right)])
    both = np.hstack([left, right])
    assert (joined.n_rows, joined.dim) == (20, 5)
    rows = np.array([4, 4, 0, 19])
    np.testing.assert_array_equal(joined.gather(rows), both[rows])
    np.testing.assert_array_equal(joined.block(3, 9), both[3:9])
    np.testing.assert_allclose(joined.mean, both.mean(0), rtol=1e-6)
    scaled = (both - joined.mean) / joined.scale
    np.testing.assert_allclose([scaled[:, :3].var(), scaled[:, 3:].var()], 1, rtol=0.2)
    assert joined.scale[0] == joined.scale[2] != joined.scale[3]


def test_one_artifact_is_opened_as_it_is_and_two_side_by_side(tmp_path):
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    one = packed(tmp_path / "one", rows, sizes=(4, 6))
    two = packed(tmp_path / "two", -rows[:, :2], sizes=(4, 6))
    assert isinstance(open_vectors([one]), MappedVectors)
    np.testing.assert_array_equal(open_vectors([one, two]).block(2, 7), np.hstack([rows, -rows[:, :2]])[2:7])
