"""The stage ``cluster``: parts of the graph in a whole run, and what a report says of the fit."""

from __future__ import annotations

import re

import pytest

from distspectral.datasets import write_vectors
from distspectral.stages.cluster import CLUSTER
from tests.datasets import ring_and_blobs
from tests.runs import write_run
from tests.stages.chain import opened

FACTS = {
    "n_clusters": 3,
    "asked": 3,
    "restarts": {"runs": 10, "lowest": 9, "rand_index": 0.99},
    "parts": 1,
    "strayed": 0.0,
}


def notes(**changes):
    return CLUSTER.notes({"cluster": FACTS | changes, "calibrate": {"suggested_n_clusters": 3}})


def test_a_run_merges_no_parts_while_it_splits_another(tmp_path):
    rows, labels = ring_and_blobs()
    path = write_run(
        tmp_path, spectral={"n_components": None}, network={"hidden": [64, 32]}, embed={"columns": ["cluster"]}
    )
    write_vectors(str(tmp_path / "data"), rows, labels=labels, sizes=(200, 100, 40))
    pipeline = opened(path, "train.max_steps=300", "train.batch_size=256")
    metrics = pipeline.run()
    assert metrics["cluster"]["parts"] == 3
    assert metrics["cluster"]["strayed"] == 0
    assert metrics["embed"]["agreement"]["ari"] == 1
    assert metrics["cluster"]["restarts"]["runs"] == 2


def test_a_good_fit_has_no_notes():
    assert notes() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"restarts": {"runs": 10, "lowest": 1, "rand_index": 0.81}}, "1 of 10 runs .* agree with it by 0.81"),
        ({"parts": 5}, "5 parts that no edge joins, more than the 3 clusters"),
        ({"parts": 2, "strayed": 0.02}, "2.0% of the rows .* train.max_steps"),
    ],
)
def test_what_to_doubt_is_noted(changes, words):
    (note,) = notes(**changes)
    assert re.search(words, note)
