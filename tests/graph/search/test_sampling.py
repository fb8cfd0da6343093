from __future__ import annotations

import contextlib

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distspectral.graph.config import GraphConfig
from distspectral.graph.search.sampling import N_CHECKED, N_QUERIES, Searched, gather_sample, n_fitted, n_seen, sampled
from distspectral.graph.search.through_cells import search_cells
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.vectors import ArrayVectors
from tests.datasets import blobs

CONFIG = GraphConfig(metric="l2", n_neighbors=5, method="cells", solver="exact", device="cpu")
ROWS, _ = blobs(3000, 4, 6)


class InTasks:
    """A mapper, and vectors that only its tasks may read."""

    def __init__(self, rows):
        self.inside = False
        self.vectors = ArrayVectors(rows)
        self.n_rows, self.dim, self.mean, self.scale = *rows.shape, self.vectors.mean, self.vectors.scale

    def __call__(self, function, items, description, *, on_gpu=False):
        for item in items:
            with self.running():
                result = function(item)
            yield result

    @contextlib.contextmanager
    def running(self):
        self.inside = True
        yield
        self.inside = False

    def block(self, start, stop):
        assert self.inside, "rows are read outside of tasks"
        return self.vectors.block(start, stop)

    def gather(self, rows):
        assert self.inside, "rows are read outside of tasks"
        return self.vectors.gather(rows)


def gathered(folder, runs, rows=ROWS):
    named = [(f"sample-{index}.arrow", run) for index, run in enumerate(runs)]
    tasks = InTasks(rows)
    return gather_sample(Searched(tasks, "l2"), Artifact(str(folder)), named, {}, CONFIG, tasks)


RUNS = [((0, 700), (700, 710)), ((710, 3000),)]


def test_a_sample_holds_the_exact_neighbours_of_its_queries(tmp_path):
    sample, checked = gathered(tmp_path, RUNS)
    assert (len(sample.queries), len(checked.queries)) == (N_QUERIES, N_CHECKED)
    distances = np.sort(cdist(sample.queries, ROWS), axis=1)[:, 1:6]
    found = np.linalg.norm(sample.truth.reshape(-1, 5, 4) - sample.queries[:, None], axis=2)
    np.testing.assert_allclose(found, distances, rtol=1e-4)
    of_checked = np.sort(cdist(ROWS[checked.queries], ROWS), axis=1)[:, 5]
    np.testing.assert_allclose(np.sqrt(checked.limits), of_checked, rtol=1e-4)
    assert not (sample.queries[:, None] == ROWS[checked.queries][None]).all(axis=2).any()


def test_a_sample_is_the_same_however_rows_are_cut(tmp_path):
    (one, of_one), (other, of_other) = gathered(tmp_path / "a", RUNS), gathered(tmp_path / "b", [[(0, 3000)]])
    np.testing.assert_array_equal(one.truth, other.truth)
    np.testing.assert_array_equal(of_one.limits, of_other.limits)
    for pool in ("fitted", "seen"):
        of_both = [getattr(sample, pool) for sample in (one, other)]
        everything = [rows.gather(np.arange(rows.n_rows)) for rows in of_both]
        np.testing.assert_array_equal(*everything)
        some = np.array([0, 5, 6, 1500, 2999])
        np.testing.assert_array_equal(of_both[0].gather(some), everything[0][some])


def test_a_pool_is_drawn_from_all_rows(tmp_path):
    rows = np.arange(50_000, dtype=np.float32)[:, None]
    sample, _ = gathered(tmp_path, [[(0, 20_000), (20_000, 20_001)], [(20_001, 50_000)]], rows)
    assert sample.fitted.n_rows == n_fitted(CONFIG, 1, 50_000, 200)
    assert sample.seen.n_rows == n_seen(50_000, 200) == 10_000
    seen = sample.seen.gather(np.arange(10_000))[:, 0]
    np.testing.assert_array_equal(seen, sampled(50_000, 10_000, CONFIG.seed + 2))
    assert seen.mean() == pytest.approx(25_000, rel=0.02)


def test_rows_seen_grow_with_the_cells_and_not_with_the_rows():
    assert n_seen(10**6, 100) == n_seen(10**9, 100) == 10_000
    assert n_seen(10**9, 20_000) == 500_000


def test_whoever_hands_out_a_search_reads_no_row_of_it(tmp_path):
    tasks = InTasks(ROWS)
    found = search_cells(tasks, Artifact(str(tmp_path)), {}, CONFIG, tasks)
    assert found.metrics["cells"] > 1
