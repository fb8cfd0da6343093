from __future__ import annotations

from distspectral.report.confusions import confusions
from distspectral.report.data import Confusion


def test_clusters_come_in_the_order_of_the_matching_and_strays_are_told() -> None:
    found = confusions(Confusion(counts=[[1, 90], [80, 3]], classes=["cat", "dog"]))
    assert found.clusters == [1, 0]
    assert [[cell.rows for cell in row.cells] for row in found.table] == [["90", "1"], ["3", "80"]]
    assert found.pairs[0] == "3 rows of dog (3.6% of them) in cluster 1, which is mostly cat"
    assert found.pairs[1].startswith("1 row of cat")


def test_too_many_for_a_table_are_told_in_words_alone() -> None:
    found = confusions(Confusion(counts=[[1] * 31], classes=["one"]))
    assert found.table == []
    assert found.n == "1 x 31"
    assert found.pairs == []
