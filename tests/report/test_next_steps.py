from __future__ import annotations

from typing import Any

import pytest

from distspectral.report.data import ReportData
from distspectral.report.next_steps import steps
from tests.report.conftest import chain, values


def commands(**changes: Any) -> str:
    return "\n".join(step.command for step in steps(ReportData.model_validate(values(**changes))))


@pytest.mark.parametrize(("n_rows", "n_drawn"), [(70_000, 1000), (50, 25), (2, 1)])
def test_no_more_rows_are_to_be_drawn_than_there_are(n_rows: int, n_drawn: int) -> None:
    assert f"--rows {n_drawn}\n" in commands(n_rows=n_rows)


def test_of_one_row_there_is_nothing_to_draw() -> None:
    assert "distspectral sample" not in commands(n_rows=1)


@pytest.mark.parametrize(
    ("n_clusters", "n_leaves", "candidate", "proposed"),
    [(4, 20, 7, 7), (4, 20, None, 8), (4, 6, 7, 6), (4, 4, None, 2), (3, 3, None, None), (1, 1, None, None)],
)
def test_the_tree_is_to_be_cut_into_another_number_that_it_has_leaves_for(
    n_clusters: int, n_leaves: int, candidate: int | None, proposed: int | None
) -> None:
    others = [] if candidate is None else [{**values()["candidates"][1], "n_clusters": candidate}]
    candidates = [values()["candidates"][0], *others] if others else []
    found = commands(n_clusters=n_clusters, tree=chain(n_leaves), candidates=candidates)
    if proposed is None:
        assert "distspectral recut" not in found
    else:
        assert f"--n-clusters {proposed}\n" in found
