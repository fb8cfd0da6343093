from __future__ import annotations

import numpy as np
import pytest

from distspectral.clustering.diffusion import (
    counted_functions,
    diffusion_scale,
    diffusion_time,
    few_spread_in_words,
    spread_functions,
)


def test_diffusion_shrinks_functions_by_their_eigenvalue():
    np.testing.assert_allclose(diffusion_scale(np.array([0, 0.1, 0.5]), 10, 2), [1, 0.9**10, 0.5**10], rtol=1e-5)
    np.testing.assert_array_equal(diffusion_scale(np.array([0, 0.3, 1.4]), 0, 2), [1, 1, 1])
    assert diffusion_scale(np.array([1.4]), 2, 1)[0] < 1e-11, "beyond 1 nothing is left"
    # unless nothing below 1 is there, as with three rows: then all functions beyond the constant count alike
    np.testing.assert_allclose(diffusion_scale(np.array([0, 1.2, 1.8]), "auto", 3), [1, 0.5, 0.5], rtol=1e-5)


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 7])
def test_by_default_the_first_function_beyond_the_counted_ones_counts_half(n_clusters):
    values = np.array([0, 0.01, 0.04, 0.05, 0.3])
    scale = diffusion_scale(values, "auto", n_clusters)
    assert scale[min(n_clusters, 4)] == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(scale, diffusion_scale(values, diffusion_time(values, n_clusters), 99), rtol=1e-6)


def test_functions_of_components_alone_survive_where_there_are_more_than_clusters():
    np.testing.assert_allclose(diffusion_scale(np.array([0, 0, 0, 0.01]), "auto", 2), [1, 1, 1, 0], atol=1e-6)


def test_eigenvalues_next_to_zero_are_told_apart_by_long_times():
    values, time = np.array([0, 2e-8, 9e-8]), 1e7
    np.testing.assert_allclose(diffusion_scale(values, time, 2), np.exp(-values * time), rtol=1e-5)


def on_shares(*shares):
    """Return functions (1000, P) that are zero but on the first share of the rows."""
    return np.column_stack([np.arange(1000) < share * 1000 for share in shares]).astype(np.float32)


def test_a_function_that_is_far_from_zero_in_a_few_rows_only_is_local():
    functions = on_shares(1, 0.5, 0.01, 0.06, 0.04, 0)
    assert spread_functions(functions, 4).tolist() == [0, 1, 3], "a fifth of an average cluster is .05"
    assert spread_functions(functions, 10).tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(spread_functions(1e-3 * functions, 4), [0, 1, 3])


def test_local_functions_are_not_counted_among_the_clusters():
    assert counted_functions(np.arange(6), 3, 6) == 3
    assert counted_functions(np.array([0, 1, 4, 5, 7]), 3, 8) == 5, "2 and 3 part specks"
    assert counted_functions(np.array([0, 1, 4]), 3, 8) == 8, "none beyond the clusters is known"


def test_fewer_spread_functions_than_clusters_are_told_of():
    assert few_spread_in_words(3, 8, 3) is None
    assert few_spread_in_words(4, 4, 6) is None, "all of them live on many rows; more were not asked for"
    words = few_spread_in_words(2, 8, 3)
    assert words is not None
    assert words.startswith("Only 2 of the 8 functions live on more than a few rows, and 3 clusters are asked for")
    assert "spectral.n_components = 16" in words
