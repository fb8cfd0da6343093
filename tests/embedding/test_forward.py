from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import nn

from distspectral.embedding import forward as module
from distspectral.embedding.forward import BLOCK_BYTES, BLOCK_ROWS, in_blocks, parts, rows_of_block
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


class Told(nn.Module):
    """Keeps how many rows pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[int] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.passed.append(len(rows))
        return rows + 1


def test_on_a_cpu_few_rows_pass_at_once_and_all_come_out_in_order(monkeypatch):
    monkeypatch.setattr(module, "CPU_ROWS", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rows, network = np.arange(90.0, dtype=np.float32).reshape(45, 2), Told()
    np.testing.assert_array_equal(in_blocks(network, ArrayVectors(rows)), rows + 1)
    assert network.passed == [20, 20, 5]
    assert [len(part) for part in parts(torch.empty(45, 2, device="meta"))] == [45], "a GPU takes all at once"
    assert len(parts(torch.eye(45).to_sparse())) == 1
