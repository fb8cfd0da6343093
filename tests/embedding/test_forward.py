from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import nn

from distspectral.embedding.forward import BLOCK_BYTES, BLOCK_ROWS, in_blocks, rows_of_block
from distspectral.models.networks import Perceptron
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors


class NeverDense(SparseVectors):
    """Sparse vectors that nobody may make dense."""

    def gather(self, rows):
        raise AssertionError("made dense")

    def block(self, start, stop):
        raise AssertionError("made dense")


def test_blocks_are_bounded_in_rows_and_in_bytes():
    assert rows_of_block(10) == BLOCK_ROWS
    assert 4 * 100_000 * rows_of_block(100_000) <= BLOCK_BYTES
    assert rows_of_block(10**9) == 1


def test_thin_rows_pass_a_perceptron_as_they_are_held():
    matrix = sparse.random(50, 400, density=0.03, random_state=0, format="csr")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceptron(400, 3, (8,)).eval()
    network.standardize_by(ArrayVectors(matrix.toarray()).mean, 0.2)
    expected = in_blocks(network, ArrayVectors(matrix.toarray()))
    np.testing.assert_allclose(in_blocks(network, NeverDense(matrix)), expected, rtol=1e-4, atol=1e-5)


def test_a_network_without_parameters_computes_on_the_cpu():
    rows = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(in_blocks(nn.Identity(), ArrayVectors(rows)), rows)
