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
