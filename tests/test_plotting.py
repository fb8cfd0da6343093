from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from distspectral.plotting import CATEGORIES, MOST_NAMED, draw_embedding, draw_rows


def test_groups_are_coloured_and_named_at_their_median() -> None:
    ax = Figure().subplots()
    made = draw_rows([0.0, 2.0, 5.0], [0.0, 2.0, 5.0], [3, 3, 1], ax, axes_named=("a", "b"))
    assert made is ax
    colours = [to_hex(colour) for colour in ax.collections[0].get_facecolors()]
    assert colours == [CATEGORIES[3], CATEGORIES[3], CATEGORIES[1]]
    assert {(text.get_text(), text.xy) for text in ax.texts} == {("1", (5.0, 5.0)), ("3", (1.0, 1.0))}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


@pytest.mark.parametrize("n_groups", [MOST_NAMED, MOST_NAMED + 1])
def test_groups_are_named_only_while_they_fit(n_groups: int) -> None:
    ax = draw_rows(range(n_groups), range(n_groups), np.arange(n_groups), Figure().subplots(), axes_named="xy")
    assert bool(ax.texts) == (n_groups == MOST_NAMED)


def test_names_are_never_read_as_formulas_and_are_cut() -> None:
    ax = draw_rows([0.0], [0.0], ["$x_{$\x00 and very much more of it"], Figure().subplots(), axes_named="xy")
    ax.figure.canvas.draw()
    assert ax.texts[0].get_text() == "$x_{$  and very m…"


@pytest.mark.parametrize(
    ("width", "named"), [(4, ("coordinate 2", "coordinate 3")), (1, ("coordinate 1", "coordinate 1"))]
)
def test_the_constant_function_is_passed_over(width: int, named: tuple[str, str]) -> None:
    ax = draw_embedding(np.ones((3, width)), [0, 0, 1], Figure().subplots())
    assert (ax.get_xlabel(), ax.get_ylabel()) == named
