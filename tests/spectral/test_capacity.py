from __future__ import annotations

import math

import pytest

from distspectral.spectral.capacity import capacity, edge_check, least_factor


def test_the_orders_follow_from_the_widths():
    found = capacity(1000, (3, 5, 2))
    assert (found.needed, found.nodes, found.edges) == (100, 7, 25)
    assert found.sigmoid == 7**2 * 25**2
    assert found.relu == pytest.approx(25 * 2 * math.log2(25))


def test_wider_layers_reach_more_rows():
    widths = (20, 512, 256, 22)
    assert capacity(1e6, widths).suffices
    assert not capacity(1e10, widths).suffices
    factor = least_factor(1e10, widths)
    assert capacity(1e10, (20, factor * 512, factor * 256, 22)).suffices
    assert not capacity(1e10, (20, (factor - 1) * 512, (factor - 1) * 256, 22)).suffices
    assert least_factor(1e6, widths) == 1


def test_only_the_kept_ritz_values_are_compared():
    check = edge_check([0.0, 0.1, 0.1, 9.0], [0.0, 0.1, 0.15, 1.0], 3, edges_drawn=100, n_edges=1e6)
    assert check.excess == pytest.approx(0.25)
    assert check.unseen == pytest.approx(math.exp(-1e-4))
    assert "stop earlier" in check.advice


def test_sums_that_agree_say_something_only_where_most_edges_were_not_drawn():
    assert "a wider network" in edge_check([0.1], [0.1], 1, edges_drawn=1, n_edges=100).advice
    assert "cannot show overfitting" in edge_check([0.1], [0.1], 1, edges_drawn=1000, n_edges=100).advice
