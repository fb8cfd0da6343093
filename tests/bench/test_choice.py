from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from distspectral.bench import choice
from distspectral.bench.choice import AUTO, KMEANS, SPACES, compare_choices, summary, table, ways
from distspectral.bench.suite import find_sets
from distspectral.cli.app import app
from distspectral.datasets import write_vectors
from tests.datasets import blobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "blobs"
    vectors, labels = blobs(240, 5)
    write_vectors(str(place), vectors, labels=labels)
    return place


def test_components_are_a_way_of_wide_rows_alone():
    assert set(ways(100)) == {f"{space}{weighed}" for space in SPACES for weighed in ("", ", Siamese")}
    assert set(ways(99)) == {name for name in ways(100) if not name.startswith("components")}


def test_all_ways_are_judged_once_and_auto_took_one_of_them(folder, tmp_path, monkeypatch):
    sets = find_sets([str(folder)], str(tmp_path))
    found = compare_choices(sets, tmp_path, (0, 1))
    assert [one["way"] for one in found] == [AUTO, *ways(5), KMEANS]
    assert all(0.9 < one["acc"] <= 1 for one in found), "blobs that nobody could miss"
    taken = found[0]["taken"]
    assert taken in ways(5)
    assert found[0]["acc"] == next(one["acc"] for one in found if one["way"] == taken)
    monkeypatch.setattr(choice, "clusters_of", lambda *_: pytest.fail("was made before"))
    assert compare_choices(sets, tmp_path, (0, 1)) == found


def test_the_loss_is_what_the_best_way_has_more():
    scores = {"a": (0.6, 0.9, 0.7), "b": (0.8, 0.8, 0.5)}
    results = [
        {"set": name, "way": way, "taken": taken, "acc": acc}
        for name, (auto, other, k_means) in scores.items()
        for way, taken, acc in ((AUTO, "rows", auto), ("codes", "codes", other), (KMEANS, KMEANS, k_means))
    ]
    found = summary(results)
    assert found["mean_loss"] == pytest.approx(0.15)
    assert found["worst_loss"] == pytest.approx(0.3)
    assert found["below_k_means"] == ["a"]
    assert found["sets"]["b"]["best"] == "rows"
    lines = table(results).splitlines()
    assert lines[2] == "| a | rows | .600 | codes | .900 | .700 |"
    assert lines[3] == "| b | rows | .800 | the same | .800 | .500 |"


def test_the_command_prints_the_table(folder, tmp_path):
    done = CliRunner().invoke(app, ["bench", "choice", str(folder), "--seed", "0", "--root", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["summary"]["sets"].keys() == {"blobs"}
    assert len((tmp_path / "choice.jsonl").read_text().splitlines()) == len(ways(5)) + 2


def test_k_means_is_that_of_the_rows(folder, tmp_path):
    (one,) = find_sets([str(folder)], str(tmp_path))
    rows, _ = one.rows(AUTO, 0)
    (found,) = choice.k_means_of(rows, one, (0,))
    assert len(np.unique(found)) == one.n_clusters
