"""Many sets: found, clustered by each method once, and printed as tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from distspectral.bench import suite
from distspectral.bench.suite import MOST_CLASSES, Results, find_sets, run_suite, summary, tables
from distspectral.cli.app import app
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError
from distspectral.orchestration.engine import LocalEngine
from tests.datasets import blobs

BRIEF = ("train.max_steps=60", "network.hidden=[16]", "representation=input", "affinity.space=euclidean")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets, and one of more classes than a suite takes unasked."""
    place = tmp_path_factory.mktemp("data")
    vectors, labels = blobs(240, 5)
    kinds = np.array([f"kind {label}" for label in labels])
    write_vectors(str(place / "named"), vectors, labels=kinds, sizes=(100, 90, 50))
    write_vectors(str(place / "numbered"), vectors, labels=labels)
    n_many = MOST_CLASSES + 1
    write_vectors(str(place / "many"), np.eye(n_many, 4, dtype=np.float32), labels=np.arange(n_many))
    return place


def run(sets, root, methods, seeds=(0,), **more):
    return run_suite(sets, root, seeds, methods, BRIEF, lambda config: LocalEngine(), Path(sys.executable), **more)


def test_sets_are_found_and_those_of_many_classes_only_where_named(folder, tmp_path):
    skipped = []
    found = find_sets([str(folder), "moons"], str(tmp_path), on_skip=skipped.append)
    assert [(one.name, one.n_clusters) for one in found] == [("named", 3), ("numbered", 3), ("moons", 2)]
    assert len(skipped) == 1
    assert f"many has {MOST_CLASSES + 1}" in skipped[0]
    assert [one.name for one in find_sets([str(folder / "many")], str(tmp_path))] == ["many"]
    with pytest.raises(ConfigError, match="two sets are called named"):
        find_sets([str(folder), str(folder / "named")], str(tmp_path))
    with pytest.raises(ConfigError, match=r"--held-out: is 3, but .*named has 3 shards"):
        find_sets([str(folder / "named")], str(tmp_path), held_out=3)


def test_scikit_learns_own_sets_are_labelled(tmp_path):
    found = {one.name: one for one in find_sets(suite.OWN, str(tmp_path))}
    assert {name: one.n_clusters for name, one in found.items()} == {"digits": 10, "moons": 2, "uneven-blobs": 6}
    _, labels = found["uneven-blobs"].rows("k-means", 0)
    assert sorted(np.unique(labels, return_counts=True)[1].tolist(), reverse=True) == list(suite.UNEVEN)


def test_a_slow_method_gets_rows_by_its_seed(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(suite.MOST_ROWS, "scikit-learn", 30)
    (one,) = find_sets([str(folder / "named")], str(tmp_path))
    whole, labels = one.rows("k-means", 0)
    few, of_few = one.rows("scikit-learn", 1)
    assert (len(whole), len(few)) == (240, 30)
    assert not np.array_equal(few, one.rows("scikit-learn", 2)[0])
    place = [int(np.flatnonzero((whole == row).all(1))[0]) for row in few]
    assert labels[place].tolist() == of_few.tolist()


def test_methods_see_the_same_rows_and_labels_only_judge(folder, tmp_path):
    sets = find_sets([str(folder / "named")], str(tmp_path), held_out=1)
    found = run(sets, tmp_path, ["distspectral", "exact", "k-means"])
    assert [(one["method"], one["n_rows"]) for one in found] == [
        ("distspectral", 190),
        ("exact", 190),
        ("k-means", 190),
    ]
    for one in found:
        assert one["acc"] > 0.95, one["method"]
        assert one["core_seconds"] > 0
    assert found[0]["held_out_acc"] > 0.95
    assert found[0]["decisions"]["calibrate.inputs"] == ["vector"]


def test_what_is_in_the_file_is_not_done_again(folder, tmp_path, monkeypatch):
    sets = find_sets([str(folder)], str(tmp_path))
    heard = []
    first = run(sets, tmp_path, ["k-means"], on_result=heard.append)
    assert heard == first
    assert [(one["set"], one["seed"]) for one in first] == [("named", 0), ("numbered", 0)]
    again = run(sets, tmp_path, ["k-means"], (0, 1), on_result=heard.append)
    assert len(heard) == 4
    assert [one for one in again if one["seed"] == 0] == first
    monkeypatch.setattr(suite, "Baseline", lambda *_: pytest.fail("all is there"))
    assert run(sets, tmp_path, ["k-means"], (0, 1)) == again


def test_results_of_other_configs_are_others(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(suite.OURS, "distspectral", lambda run: {"acc": float(len(run.overrides))})
    sets = find_sets([str(folder / "named")], str(tmp_path))

    def acc(*overrides):
        (one,) = run_suite(sets, tmp_path, (0,), ["distspectral"], overrides, lambda config: LocalEngine())
        return one["acc"]

    assert [acc(), acc("a.b=1"), acc()] == [0, 1, 0]


def test_a_line_cut_short_is_as_good_as_absent(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"set": "a", "acc": 1}\n{"set": "b", "a')
    results = Results(path)
    assert results.of({"set": "b"}) == []
    results.add({"set": "b", "acc": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"set": "a", "acc": 1},
        {"set": "b", "acc": 0.5},
    ]


def result(name, method, seed, acc, **more):
    return {"set": name, "method": method, "seed": seed, "acc": acc, "nmi": 0.5, "core_seconds": 1200.0, **more}


def test_tables_have_means_deviations_coverage_and_decisions():
    results = [
        result("one", "k-means", 0, 0.7),
        result("one", "k-means", 1, 0.8),
        result("one", "evoc", 0, 0.9, covered=0.96, covered_acc=1.0, covered_nmi=0.75),
        result("two", "distspectral", 0, 0.6, decisions={"calibrate.inputs": ["code", "siamese"], "a.b": True}),
        result("two", "distspectral", 1, 0.6, decisions={"calibrate.inputs": ["vector"], "a.b": True}),
    ]
    assert summary(results)["one"]["k-means"]["acc"] == (pytest.approx(0.75), pytest.approx(0.0707, abs=1e-4))
    ours, leaders = suite.TITLES["distspectral"], suite.TITLES["evoc"]
    assert tables(results).splitlines() == [
        "| ACC (deviation) / NMI | one | two |",
        "| --- | --- | --- |",
        f"| {ours} |  | **.600** / .500 |",
        "| k-means | .750 (.071) / .500 |  |",
        f"| {leaders} | **.900** / .500 |  |",
        f"| {leaders}, the rows it labels | 1.000 / .750, 96% |  |",
        "",
        "| core-seconds | one | two |",
        "| --- | --- | --- |",
        f"| {ours} |  | 1,200 |",
        "| k-means | 1,200 |  |",
        f"| {leaders} | 1,200 |  |",
        "",
        "| decided | calibrate.inputs | a.b |",
        "| --- | --- | --- |",
        "| two | code + siamese, vector | yes |",
    ]


def test_the_command_prints_json_or_tables_and_refuses_unknown_methods(folder, tmp_path):
    theirs = str(Path(sys.prefix))
    arguments = [
        "bench",
        "quality",
        str(folder / "named"),
        "--seed",
        "0",
        "--method",
        "k-means",
        "--root",
        str(tmp_path),
    ]
    printed = CliRunner().invoke(app, [*arguments, "--baselines-env", theirs, "--json"])
    assert printed.exit_code == 0, printed.stderr
    assert json.loads(printed.stdout)["summary"]["named"]["k-means"]["acc"][0] > 0.95
    printed = CliRunner().invoke(app, [*arguments, "--baselines-env", theirs])
    assert "| k-means | **1.000** / 1.000 |" in printed.stdout
    refused = CliRunner().invoke(app, [*arguments[:-1], "s3://bucket/runs"])
    assert refused.exit_code != 0
    assert "--root: is s3://bucket/runs" in str(refused.exception) + refused.stderr
    with pytest.raises(ConfigError, match="'other' is none of distspectral, exact, k-means"):
        run(find_sets([str(folder / "named")], str(tmp_path)), tmp_path, ["other"])
