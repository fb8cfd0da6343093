from __future__ import annotations

import numpy as np
import pytest

from distspectral.graph.search.products import GROUPS, LEAST_BLOCK, Base


def squared(queries, rows):
    return np.square(queries[:, None].astype(np.float64) - rows[None]).sum(axis=2)


def tabled(blocks, n_queries):
    """Return the candidates of each query as a set, and what would prove them complete."""
    sets, proofs = [], []
    for part, found in blocks:
        assert len(found.counts) == part.stop - part.start
        at = found.filled(found.positions, -1)
        sets += [set(row[row >= 0].tolist()) for row in at]
        assert [len(one) for one in sets[part]] == found.counts.tolist()
        np.testing.assert_array_equal(found.queries, np.nonzero(at >= 0)[0])
        proofs.append(found)
    assert len(sets) == n_queries
    return sets, lambda worst: np.concatenate(
        [
            one.are_complete(part)
            for one, part in zip(proofs, np.split(worst, np.cumsum([len(p.counts) for p in proofs])[:-1]), strict=True)
        ]
    )


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 300])
@pytest.mark.parametrize("n_rows", [30, GROUPS, GROUPS + 1, 700])
def test_whoever_is_nearer_than_what_is_proven_is_a_candidate(n_rows, dim, bfloat16):
    rows = np.random.default_rng(dim).standard_normal((n_rows, dim)).astype(np.float32) + 2
    apart = squared(rows, rows)
    np.fill_diagonal(apart, np.inf)
    candidates, complete = tabled(Base(rows, 20, bfloat16).nearest_others(), n_rows)
    worst = np.sort(apart, axis=1)[:, 11].astype(np.float32)
    proven = complete(worst)
    assert proven.mean() > (0.99 if dim > 1 or not bfloat16 else 0.9)
    for row in range(n_rows):
        assert row not in candidates[row]
        assert not proven[row] or set(np.flatnonzero(apart[row] <= worst[row])) <= candidates[row]
    assert not complete(worst * 100).all() or n_rows == 30, "so many rows are no candidates"


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_rounding_hides_is_not_proven(bfloat16):
    rng = np.random.default_rng(0)
    far, tight = rng.standard_normal((2, 40)) * 100, rng.standard_normal((400, 40)) * 1e-2
    rows = (tight + np.repeat(far, 200, axis=0)).astype(np.float32)
    apart = squared(rows, rows)
    np.fill_diagonal(apart, np.inf)
    candidates, complete = tabled(Base(rows, 12, bfloat16).nearest_others(), 400)
    missed = [not set(np.argsort(apart[row])[:10]) <= candidates[row] for row in range(400)]
    assert any(missed), "the case is as hard as it is meant to be"
    assert not complete(np.sort(apart, axis=1)[:, 9].astype(np.float32))[missed].any()


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_fewer_rows_than_wanted_give_all_others(n_rows):
    rows = np.arange(n_rows, dtype=np.float32)[:, None]
    candidates, complete = tabled(Base(rows, 200).nearest_others(), n_rows)
    assert candidates == [set(range(n_rows)) - {row} for row in range(n_rows)]
    assert complete(np.full(n_rows, np.inf, np.float32)).all()


@pytest.mark.parametrize("dim", [3, 300])
def test_equal_rows_are_all_candidates(dim):
    rows = np.repeat(np.eye(4, dim, dtype=np.float32), 10, axis=0)
    candidates, _ = tabled(Base(rows, 9).nearest_others(), 40)
    assert candidates[9] >= set(range(9))


def test_queries_need_not_be_rows_of_the_base():
    rng = np.random.default_rng(1)
    rows, queries = (rng.standard_normal((n, 30)).astype(np.float32) for n in (500, LEAST_BLOCK * 9 + 1))
    candidates, _ = tabled(Base(rows, 30, bfloat16=True).nearest(queries), len(queries))
    nearest = np.argsort(squared(queries, rows), axis=1)[:, :10]
    assert all(set(of_one) <= found for of_one, found in zip(nearest.tolist(), candidates, strict=True))
    again, _ = tabled(Base(rows, 30, bfloat16=True).nearest(rows), 500)
    assert all(row in found for row, found in enumerate(again)), "a query that is a row of the base finds it"


def test_more_neighbours_than_groups_have_groups_enough():
    rows = np.random.default_rng(2).standard_normal((900, 5)).astype(np.float32)
    candidates, _ = tabled(Base(rows, 300).nearest_others(), 900)
    nearest = np.argsort(squared(rows, rows), axis=1)[:, 1:301]
    assert all(set(of_one) <= found for of_one, found in zip(nearest.tolist(), candidates, strict=True))
