from __future__ import annotations

import numpy as np

from distspectral.tiles.plane import AXIS_BITS, Plane, cell_of, row_hash


def test_a_cell_is_found_again_from_its_place_along_the_curve() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500)).astype(np.float32)
    plane = Plane.around(np.array([x.min(), y.min()], float), np.array([x.max(), y.max()], float))
    morton = plane.morton(x, y)
    for bits in (0, 1, 3, 7, AXIS_BITS):
        across, up = cell_of(morton, bits)
        assert across.tolist() == np.floor((x.astype(float) - plane.x) / plane.side * 2**bits).astype(int).tolist()
        assert up.tolist() == np.floor((y.astype(float) - plane.y) / plane.side * 2**bits).astype(int).tolist()
    order = np.argsort(morton)
    for bits in (1, 3):  # a cell's rows stand together
        across, up = cell_of(morton[order], bits)
        cells = up.astype(int) * 2**bits + across
        assert len(np.unique(cells)) == 1 + np.count_nonzero(np.diff(cells))


def test_all_places_lie_in_the_square_also_a_single_one() -> None:
    plane = Plane.around(np.array([-3.0, 2.0]), np.array([5.0, 2.5]))
    for x, y, cell in ((-3.0, 2.0, (0, 3)), (5.0, 2.5, (7, 4))):
        across, up = cell_of(plane.morton(np.array([x], np.float32), np.array([y], np.float32)), 3)
        assert (across[0], up[0]) == cell
    lone = Plane.around(np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert np.isfinite(lone.side)
    assert lone.side > 0
    lone.morton(np.ones(1, np.float32), np.ones(1, np.float32))


def test_a_row_has_one_number_wherever_a_block_begins() -> None:
    numbers = row_hash(0, 5000)
    assert (row_hash(3000, 2000) == numbers[3000:]).all()
    assert len(np.unique(numbers)) == 5000
    shares = np.histogram(numbers.astype(float) / 2.0**64, bins=10, range=(0, 1))[0]
    assert shares.min() > 400  # 500 each, give or take 21
