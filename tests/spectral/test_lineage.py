"""Clusters followed from one run to the next."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from distspectral.spectral.lineage import UNKNOWN, Lineage, lineage


def labels(counts: dict[tuple[int, int], int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return earlier and present clusters of rows by how many rows are in which two."""
    pairs = np.repeat(np.array(list(counts)), list(counts.values()), axis=0)
    pairs = np.random.default_rng(0).permutation(pairs)
    return pairs[:, 0], pairs[:, 1]


def found(counts: dict[tuple[int, int], int], n_old: int, n_new: int) -> tuple[Lineage, list[tuple[object, ...]]]:
    made = lineage(*labels(counts), n_old, n_new)
    return made, [record[:4] for record in made.records]


def test_the_same_clusters_in_another_order_are_all_kept() -> None:
    made, records = found({(0, 2): 50, (1, 0): 30, (2, 1): 40, (2, 2): 2}, 3, 3)
    assert made.numbers.tolist() == [1, 2, 0]
    assert records == [("kept", 0, 0, 50), ("kept", 1, 1, 30), ("kept", 2, 2, 40)]
    assert made.records[0].share_of_new == pytest.approx(50 / 52)
    assert made.records[2].share_of_old == pytest.approx(40 / 42)


def test_the_larger_part_keeps_the_number_and_the_other_is_split_off() -> None:
    made, records = found({(0, 0): 30, (0, 1): 70, (1, 2): 10}, 2, 3)
    assert made.numbers.tolist() == [2, 0, 1]
    assert records == [("kept", 0, 0, 70), ("kept", 1, 1, 10), ("split", 0, 2, 30)]


def test_the_larger_part_of_a_merger_gives_the_number() -> None:
    made, records = found({(0, 0): 30, (1, 0): 70, (2, 1): 9}, 3, 2)
    assert made.numbers.tolist() == [1, 0]  # 2 is beyond the two there are, and taken by its cluster no more
    assert records == [("kept", 1, 1, 70), ("kept", 2, 0, 9), ("merged", 0, 1, 30)]


def test_what_gets_less_than_half_of_its_rows_from_any_is_none_of_them() -> None:
    _, records = found({(0, 0): 40, (1, 0): 35, (2, 0): 25}, 3, 1)
    assert records == [("merged", 0, 0, 40), ("merged", 1, 0, 35), ("merged", 2, 0, 25), ("born", None, 0, 100)]


def test_of_two_halves_the_lower_number_is_kept() -> None:
    made, records = found({(0, 1): 50, (0, 0): 50}, 1, 2)
    assert records == [("kept", 0, 0, 50), ("split", 0, 1, 50)]
    assert made.numbers.tolist() == [0, 1]


def test_what_the_earlier_run_has_no_rows_of_is_born_although_a_few_strayed_there() -> None:
    rows = {(0, 0): 90, (1, 1): 90, (0, 2): 2, (UNKNOWN, 2): 80, (UNKNOWN, 0): 20, (UNKNOWN, 1): 20}
    made, records = found(rows, 2, 3)
    assert records == [("kept", 0, 0, 90), ("kept", 1, 1, 90), ("born", None, 2, 82)]
    assert made.records[-1].known_share == pytest.approx(2 / 82)
    # a cluster that holds most of an earlier one is that one, however many came
    assert found({(0, 0): 10, (UNKNOWN, 0): 500, (1, 1): 400}, 2, 2)[1][0] == ("kept", 0, 0, 10)


def test_what_is_scattered_or_has_no_rows_is_gone() -> None:
    rows = {(0, 0): 40, (0, 1): 40, (0, 2): 40, (1, 0): 90, (2, 1): 90, (3, 2): 90}
    made, records = found(rows, 5, 3)
    assert records == [
        ("kept", 1, 1, 90),
        ("kept", 2, 2, 90),
        ("kept", 3, 0, 90),
        ("gone", 0, None, 120),
        ("gone", 4, None, 0),
    ]
    assert sorted(made.numbers) == [0, 1, 2]


def test_runs_without_common_rows_share_no_cluster() -> None:
    _, records = found({(UNKNOWN, 0): 5, (UNKNOWN, 1): 6}, 1, 2)
    assert records == [("born", None, 1, 5), ("born", None, 0, 6), ("gone", 0, None, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_every_cluster_has_its_record_and_every_number_its_cluster(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_old, n_new = rng.integers(1, 9, 2)
    made = lineage(rng.integers(-1, n_old, 60), rng.integers(0, n_new, 60), n_old, n_new)
    assert sorted(made.numbers) == list(range(n_new))
    assert sorted(one.new for one in made.records if one.event in ("kept", "split", "born")) == list(range(n_new))
    assert sorted(one.old for one in made.records if one.event in ("kept", "merged", "gone")) == list(range(n_old))
