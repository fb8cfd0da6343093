"""Outliers fitted to a sample: planted ones among Gaussians are told, whatever the blocks."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from distspectral.embedding.outliers import fitted_outliers
from distspectral.models.assigner import Assigner
from distspectral.storage.rows.sparse import SparseVectors
from distspectral.storage.rows.vectors import ArrayVectors


def test_planted_rows_are_told_and_few_others(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(2_000) % 2
    rows = (rng.normal(size=(2_000, 8)) + 12 * y[:, None]).astype(np.float32)
    embedding = torch.from_numpy((y[:, None] + 0.01 * rng.normal(size=(2_000, 2))).astype(np.float32))
    rows[:20] += 10 * rng.choice([-1, 1], (20, 8))  # strange among the rows
    embedding[20:40] += 0.5 * torch.from_numpy(rng.choice([-1, 1], (20, 2)))  # strange in the embedding
    assigner = Assigner(torch.ones(2), torch.tensor([[0.0, 0], [1, 1]]), False, 1.0)
    sampled = np.arange(2_000)
    found = fitted_outliers(assigner, embedding, ArrayVectors(rows), sampled)
    cluster, distance = assigner(embedding)
    strange = found(torch.from_numpy(rows), cluster, distance).numpy()
    assert strange[:40].all()
    assert strange[40:].mean() < 0.01
    monkeypatch.setattr("distspectral.embedding.outliers.rows_of_block", lambda dim: 300)
    again = fitted_outliers(assigner, embedding, ArrayVectors(rows), sampled)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


def test_sparse_rows_are_fitted_as_dense_ones():
    rng = np.random.default_rng(1)
    rows = (rng.random((200, 40)) * (rng.random((200, 40)) < 0.05)).astype(np.float32)
    embedding = torch.from_numpy(rng.normal(size=(200, 2)).astype(np.float32))
    assigner = Assigner(torch.ones(2), torch.tensor([[-1.0, 0], [1, 0]]), False, 1.0)
    dense, thin = (
        fitted_outliers(assigner, embedding, vectors, np.arange(200))
        for vectors in (ArrayVectors(rows), SparseVectors(sparse.csr_matrix(rows)))
    )
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(thin.state_dict()[name], value, rtol=1e-4, atol=1e-5)
