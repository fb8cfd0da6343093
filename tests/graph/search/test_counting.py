from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.search.cells import NO_CELL, Cells
from distspectral.graph.search.counting import CellCounts, count_cells
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

N_ROWS, N_SEEN, N_CELLS = 10**9, 100_000, 4000


def estimated(sizes, seed=0, n_seen=N_SEEN):
    """What a sample says of cells of these sizes, of which no row is in two."""
    counts = np.random.default_rng(seed).poisson(sizes * (n_seen / N_ROWS))
    return counts, CellCounts.of(counts, float(counts.sum()), n_seen, N_ROWS)


def test_equal_cells_are_found_equal_though_their_counts_differ():
    sizes = np.full(N_CELLS, N_ROWS / N_CELLS)
    counts, found = estimated(sizes)
    assert counts.max() * (N_ROWS / N_SEEN) > 1.6 * sizes[0]
    assert found.sizes.max() < 1.15 * sizes[0]
    assert (found.sizes + 2 * found.errors).max() < 1.3 * sizes[0]


@pytest.mark.parametrize("shape", [2.0, 20.0])
def test_sizes_of_unequal_cells_are_off_by_their_errors(shape):
    sizes = np.random.default_rng(1).gamma(shape, size=N_CELLS)
    sizes *= N_ROWS / sizes.sum()
    counts, found = estimated(sizes)
    off = (found.sizes - sizes) / found.errors
    assert abs(off.mean()) < 0.1
    assert 0.9 < off.std() < 1.1
    by_count = counts * (N_ROWS / N_SEEN)
    assert np.square(found.sizes - sizes).mean() < np.square(by_count - sizes).mean()
    assert abs(found.sizes.max() - sizes.max()) < abs(by_count.max() - sizes.max())


def test_one_cell_that_holds_a_tenth_is_not_taken_for_noise():
    sizes = np.full(N_CELLS, 0.9 * N_ROWS / N_CELLS)
    sizes[7] = 0.1 * N_ROWS
    found = estimated(sizes)[1]
    assert found.sizes[7] == pytest.approx(sizes[7], rel=0.05)


def test_pairs_of_a_cell_are_counted_without_the_pairs_that_noise_makes():
    sizes = np.full(N_CELLS, N_ROWS / N_CELLS)
    found = np.mean([estimated(sizes, seed, n_seen=10_000)[1].pairs for seed in range(20)])
    assert found == pytest.approx(np.square(sizes).sum() / N_ROWS, rel=0.05)  # counts alone: 1.4 times as many


def test_copies_of_a_few_rows_are_off_by_their_error():
    rows, _ = blobs(40_000, 4, 9)
    cells = [Cells(rows[:50], 2, 0.3), Cells(rows[:50], 5, 1.0)]
    off = []
    for index in range(20):
        seen = ArrayVectors(np.random.default_rng(index).permutation(rows)[:400])
        for option, found in zip(cells, count_cells(cells, seen, len(rows), 0), strict=True):
            copies = np.count_nonzero(option.assign(rows) != NO_CELL, axis=1).mean()
            off.append((found.copies - copies) / found.copies_error)
    assert abs(np.mean(off)) < 0.6
    assert 0.7 < np.std(off) < 1.4


def test_all_rows_leave_no_error():
    rows, _ = blobs(500, 4)
    cells = Cells(rows[:20], 2, 0.3)
    (found,) = count_cells([cells], ArrayVectors(rows), 500, 0)
    assigned = cells.assign(rows)
    np.testing.assert_allclose(found.sizes, np.bincount(assigned[assigned != NO_CELL], minlength=20))
    assert not found.errors.any()
    assert found.copies_error == 0
    assert found.pairs == pytest.approx(np.square(found.sizes).sum() / 500, rel=0.01)
