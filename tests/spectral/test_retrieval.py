from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from distspectral.spectral.diagnostics import label_agreement, normalized_mutual_information
from distspectral.spectral.retrieval import average_precision_at_r, recall_hits, span_basis

HITS = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)


def test_recall_counts_rows_with_a_hit_among_the_first():
    assert recall_hits(HITS, (1, 2, 4, 100)).tolist() == [1, 2, 2, 2]


def test_average_precision_is_that_of_the_definition():
    # R = 3: hits at places 2 and 3; R = 1: only place 1 counts; R = 2: none
    expected = [(1 / 2 + 2 / 3) / 3, 1.0, 0.0]
    assert average_precision_at_r(HITS, np.array([3, 1, 2])).tolist() == pytest.approx(expected)


def test_precision_counts_hits_within_r_only():
    assert average_precision_at_r(np.array([[1, 0, 1, 1]], dtype=bool), np.array([2]))[0] == pytest.approx(0.5)


def test_scores_agree_with_those_of_pytorch_metric_learning():
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(8), 6)
    points = (rng.standard_normal((8, 5))[classes] + 0.8 * rng.standard_normal((48, 5))).astype(np.float32)
    order = np.argsort(((points[:, None] - points) ** 2).sum(2) + 1e9 * np.eye(48), axis=1)[:, :47]
    hits = classes[order] == classes[:, None]
    calculator = accuracy.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"), k="max_bin_count"
    )
    theirs = calculator.get_accuracy(torch.from_numpy(points), torch.from_numpy(classes))
    assert recall_hits(hits, (1,))[0] / 48 == pytest.approx(theirs["precision_at_1"])
    ours = average_precision_at_r(hits, np.full(48, 5)).mean()
    assert ours == pytest.approx(theirs["mean_average_precision_at_r"])


def test_span_gives_the_left_singular_vectors_whatever_the_scale_of_columns():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 4)) * [1, 10, 0.1, 3]
    rows = np.hstack([rows, rows[:, :1] - rows[:, 1:2], np.zeros((50, 1))])
    rows -= rows.mean(axis=0)
    u = rows @ span_basis(rows.T @ rows)
    assert u.shape == (50, 4), "two directions are dependent"
    np.testing.assert_allclose(u.T @ u, np.eye(4), atol=1e-9)
    left = np.linalg.svd(rows, full_matrices=False)[0][:, :4]
    np.testing.assert_allclose(u @ u.T, left @ left.T, atol=1e-9)


def test_nmi_is_scikit_learns_dense_or_sparse():
    import scipy.sparse

    rng = np.random.default_rng(0)
    classes, clusters = rng.integers(0, 5, 200), rng.integers(0, 7, 200)
    clusters[:90] = classes[:90]
    counts = np.zeros((5, 7), dtype=np.int64)
    np.add.at(counts, (classes, clusters), 1)
    expected = normalized_mutual_info_score(classes, clusters)
    assert normalized_mutual_information(counts) == pytest.approx(expected)
    assert normalized_mutual_information(scipy.sparse.csr_matrix(counts)) == pytest.approx(expected)
    assert label_agreement(counts)["nmi"] == pytest.approx(expected)
