from __future__ import annotations

import pytest

from distspectral.costs.search import MOST_COPIES, expected_copies, expected_join, pooled_rows
from distspectral.graph.config import GraphConfig
from tests.planning.constructed import SEARCH


def test_copies_grow_with_the_logarithm_of_the_rows_up_to_what_cells_allow():
    assert expected_copies(SEARCH, 40_000, 40_000) == 2
    assert expected_copies(SEARCH, 4_000_000, 40_000) == pytest.approx(3)
    assert expected_copies(SEARCH, 1e30, 40_000) == MOST_COPIES
    assert expected_copies(SEARCH, 1000, 40_000) == 2  # a sample larger than the plan says nothing of fewer copies


def test_cells_stay_as_large_as_the_sample_s_unless_another_solver_is_cheaper():
    join = expected_join(SEARCH, GraphConfig(solver="exact"), 1e6, 40_000, gpu=False)
    assert (join.solver, join.cell_rows) == ("exact", 1000)
    assert join.parts_us["sample"] == 2
    doubled = SEARCH.model_copy(update={"solve": 2.0})
    dearer = expected_join(doubled, GraphConfig(solver="exact"), 1e6, 40_000, gpu=False)
    assert dearer.parts_us["solve"] == pytest.approx(2 * join.parts_us["solve"])
    wide = SEARCH.model_copy(update={"dim": 1000, "cells": 1})
    assert expected_join(wide, GraphConfig(), 1e6, 40_000, gpu=False).solver == "nn_descent"
    assert expected_join(SEARCH, GraphConfig(), 1e6, 40_000, gpu=True).cell_rows >= 64_000


def test_a_task_s_memory_bounds_the_cells():
    config = GraphConfig(solver="exact", task_memory="64MiB")
    join = expected_join(SEARCH, config, 1e9, 40_000, gpu=False)
    assert join.cells == pytest.approx((64 << 20) / (16 * SEARCH.dim))
    assert join.cell_rows == pytest.approx(1e9 / join.cells)


def test_the_sample_grows_with_the_cells_until_memory_ends_it():
    config = GraphConfig()
    few, more, most = (pooled_rows(config, 96, 1e9, cells) for cells in (10, 4000, 1e6))
    assert few == 10_000 + 10_000
    assert more == 64 * 4000 + 25 * 4000
    assert most == (1 << 30) // (8 * 96) + (1 << 20)
    assert pooled_rows(config, 96, 5000, 10) == 5000 + 5000
