"""Scores of clusters: rows left out, and what a run says that it chose."""

from __future__ import annotations

import numpy as np
import pytest

from distspectral.bench.quality import VOTERS, decisions, filled, judged

ROWS = np.array([[0.0], [1.0], [2.0], [3.0], [10.0], [11.0], [12.0], [1.5], [11.5]], np.float32)
LABELS = np.array(["a", "a", "a", "a", "b", "b", "b", "a", "a"])
FOUND = np.array([0, 0, 0, 0, 1, 1, 1, -1, -1])


def test_rows_left_out_get_the_cluster_of_most_of_their_nearest_rows(monkeypatch):
    monkeypatch.setattr("distspectral.bench.quality.VOTERS", 3)
    assert filled(FOUND, ROWS).tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 1]
    assert FOUND[-1] == -1
    assert len(ROWS) < VOTERS, "all seven vote otherwise, and the larger cluster wins"
    monkeypatch.setattr("distspectral.bench.quality.VOTERS", VOTERS)
    assert filled(FOUND, ROWS)[-2:].tolist() == [0, 0]


def test_scores_are_of_all_rows_and_of_those_with_a_cluster(monkeypatch):
    monkeypatch.setattr("distspectral.bench.quality.VOTERS", 3)
    scores = judged(LABELS, FOUND, ROWS)
    assert (scores["n_rows"], scores["clusters"], scores["covered"]) == (9, 2, pytest.approx(7 / 9))
    assert scores["acc"] == pytest.approx(8 / 9)
    assert [scores[f"covered_{key}"] for key in ("acc", "nmi", "ari")] == pytest.approx([1, 1, 1])


def test_nothing_is_said_of_coverage_where_no_row_is_left_out():
    assert set(judged(LABELS, np.maximum(FOUND, 0), ROWS)) == {"acc", "nmi", "ari", "n_rows", "clusters"}


def test_a_method_that_labels_nothing_found_one_cluster():
    scores = judged(LABELS, np.full(9, -1), ROWS)
    assert (scores["covered"], scores["clusters"], scores["acc"]) == (0, 0, pytest.approx(6 / 9))
    assert "covered_acc" not in scores


def test_decisions_are_words_of_the_stages():
    metrics = {
        "name": "quality",
        "seconds": {"pack": 1.0},
        "codes": {"explained_variance": 0.5, "width": 10},
        "calibrate": {"inputs": ["code", "siamese"], "ritz_values": [0.0, 0.1], "n_components": 2},
        "train": {"stopped_because": "max_steps was reached", "loss": 1.0},
        "cluster": {"normalize_rows": True, "restarts": {"n_runs": 10}},
    }
    assert decisions(metrics) == {
        "codes.explained_variance": 0.5,
        "calibrate.inputs": ["code", "siamese"],
        "cluster.normalize_rows": True,
    }
