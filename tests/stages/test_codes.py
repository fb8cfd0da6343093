from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.embedding.forward import forward
from distspectral.models.networks import Perceptron
from distspectral.stages.codes import explained_variance
from distspectral.storage.rows.vectors import ArrayVectors


def test_explained_variance_is_that_of_rows_never_seen_around_their_own_mean():
    rows = (np.random.default_rng(0).normal(size=(100, 6)) + 3).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = Perceptron(6, 2, (3,)).eval(), Perceptron(2, 6, (3,)).eval()
    judged = rows[19::20].astype(float)
    rebuilt = forward(decoder, forward(encoder, rows[19::20]))
    expected = 1 - np.square(rebuilt - judged).sum() / np.square(judged - judged.mean(0)).sum()
    assert explained_variance(encoder, decoder, ArrayVectors(rows)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n_rows", [20, 26, 99])
def test_of_few_rows_all_are_judged(n_rows):
    rows = (np.random.default_rng(n_rows).normal(size=(n_rows, 6)) + 3).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = Perceptron(6, 2, (3,)).eval(), Perceptron(2, 6, (3,)).eval()
    rebuilt = forward(decoder, forward(encoder, rows))
    expected = 1 - np.square(rebuilt - rows).sum() / np.square(rows - rows.mean(0, dtype=np.float64)).sum()
    assert explained_variance(encoder, decoder, ArrayVectors(rows)) == pytest.approx(expected, rel=1e-4)


def test_of_equal_rows_nothing_is_kept():
    rows = np.ones((20, 6), np.float32)
    assert explained_variance(Perceptron(6, 2, ()).eval(), Perceptron(2, 6, ()).eval(), ArrayVectors(rows)) == 0
