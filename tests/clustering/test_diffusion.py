from __future__ import annotations

import numpy as np
import pytest

from distspectral.clustering.diffusion import diffusion_scale, diffusion_time


def test_diffusion_shrinks_functions_by_their_eigenvalue():
    np.testing.assert_allclose(diffusion_scale(np.array([0, 0.1, 0.5]), 10, 2), [1, 0.9**10, 0.5**10], rtol=1e-5)
    np.testing.assert_array_equal(diffusion_scale(np.array([0, 0.3, 1.4]), 0, 2), [1, 1, 1])
    assert diffusion_scale(np.array([1.4]), 2, 1)[0] < 1e-11, "beyond 1 nothing is left"
    # unless nothing below 1 is there, as with three rows: then all functions beyond the constant count alike
    np.testing.assert_allclose(diffusion_scale(np.array([0, 1.2, 1.8]), "auto", 3), [1, 0.5, 0.5], rtol=1e-5)


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 7])
def test_by_default_the_first_function_beyond_the_clusters_counts_half(n_clusters):
    values = np.array([0, 0.01, 0.04, 0.05, 0.3])
    scale = diffusion_scale(values, "auto", n_clusters)
    assert scale[min(n_clusters, 4)] == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(scale, diffusion_scale(values, diffusion_time(values, n_clusters), 99), rtol=1e-6)


def test_functions_of_components_alone_survive_where_there_are_more_than_clusters():
    np.testing.assert_allclose(diffusion_scale(np.array([0, 0, 0, 0.01]), "auto", 2), [1, 1, 1, 0], atol=1e-6)


def test_eigenvalues_next_to_zero_are_told_apart_by_long_times():
    values, time = np.array([0, 2e-8, 9e-8]), 1e7
    np.testing.assert_allclose(diffusion_scale(values, time, 2), np.exp(-values * time), rtol=1e-5)
