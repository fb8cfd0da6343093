"""Layouts judged: what is kept, told apart, and to scale; by our own run, and beside it."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from distspectral.bench import baseline_methods as script
from distspectral.bench import baselines
from distspectral.bench.map import HELD_OUT_SHARE, METHODS, TITLES, layout_scores
from distspectral.cli.app import app
from distspectral.datasets import write_vectors
from tests.datasets import blobs

BRIEF = [
    option
    for setting in (
        "representation=input",
        "affinity.space=euclidean",
        "network.hidden=[16]",
        "train.max_steps=40",
        "map.hidden=[16]",
        "map.max_steps=100",
        "map.batch_size=64",
    )
    for option in ("--set", setting)
]


def plane(n_rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Four clusters in the plane."""
    rng = np.random.default_rng(0)
    labels = np.arange(n_rows) % 4
    centres = np.array([[0, 0], [10, 0], [0, 20], [40, 40]])
    return (centres[labels] + rng.standard_normal((n_rows, 2))).astype(np.float32), labels


def test_a_layout_that_is_the_rows_keeps_everything_and_noise_nothing():
    rows, labels = plane()
    same = layout_scores(rows, 3 * rows, labels, (rows[:50], 3 * rows[:50], labels[:50]))
    assert same["trustworthiness"] == pytest.approx(1)
    assert same["kept"] == same["new_kept"] == 1
    assert same["accuracy"] == same["new_accuracy"] == 1
    assert same["centres"] == pytest.approx(1)
    noise = np.random.default_rng(1).standard_normal(rows.shape).astype(np.float32)
    lost = layout_scores(rows, noise, labels)
    assert lost["trustworthiness"] < 0.6
    assert lost["kept"] < 0.1
    assert lost["accuracy"] < 0.5
    assert "new_kept" not in lost


def test_a_row_is_no_neighbour_of_its_own_even_where_others_equal_it():
    rows, labels = plane(200)
    twice = np.concatenate([rows, rows])
    assert layout_scores(twice, twice, np.concatenate([labels, labels]))["kept"] > 0.9


def test_a_layout_without_places_for_new_rows_is_judged_by_the_others():
    rows, labels = plane()
    found = layout_scores(rows, rows, labels, (rows[:9], np.full((9, 2), np.nan, np.float32), labels[:9]))
    assert not any(key.startswith("new") for key in found)


def test_every_layout_has_its_requirements_and_a_title():
    assert set(script.LAYOUTS) == set(baselines.LAYOUTS)
    assert set(TITLES) == set(METHODS)


def test_a_layouts_process_answers_with_old_places_and_new_ones(tmp_path, monkeypatch):
    def twice(rows, new, seed):
        return 2 * rows[:, :2] + seed, lambda: 3 * new[:, :2]

    monkeypatch.setitem(script.LAYOUTS, "umap", twice)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "new.npy", rows[:1])
    files = {name: str(tmp_path / f"{name}.npy") for name in ("rows", "new", "places")}
    took = script.answer("umap", {**files, "seed": 1}, set())
    assert set(took) == {"core_seconds", "seconds", "new_core_seconds"}
    np.testing.assert_array_equal(np.load(files["places"]), [*(2 * rows[:, :2] + 1), *(3 * rows[:1, :2])])


def test_a_layout_compiles_by_what_stands_in_for_it_once_for_each_number_of_rows(tmp_path, monkeypatch):
    called = []

    def layout(name):
        return lambda rows, new, seed: (called.append(name), (rows[:, :2], lambda: new[:, :2]))[1]

    monkeypatch.setitem(script.LAYOUTS, "parametric-umap", layout("itself"))
    monkeypatch.setitem(script.LAYOUT_WARM_UPS, "parametric-umap", layout("compiles"))
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    asked = {name: str(tmp_path / f"{name}.npy") for name in ("rows", "new", "places")} | {"seed": 0}
    np.save(asked["rows"], rows)
    np.save(asked["new"], rows)
    warm_for = set()
    for _ in range(2):
        assert "error" not in script.answer("parametric-umap", asked, warm_for)
    assert called == ["compiles", "itself", "itself"]


def test_parametric_umap_learns_a_network_that_places_new_rows_among_their_like(monkeypatch):
    rows, labels = plane(160)
    old, new = rows[:120], rows[120:]

    class Fitted:
        """Stands for UMAP, which the tests' environment lacks: a graph of like rows and its default curve."""

        def __init__(self, **settings):
            assert settings["transform_mode"] == "graph"

        def fit(self, fitted):
            near = np.argsort(np.square(fitted[:, None] - fitted[None]).sum(2), axis=1)[:, 1:6]
            heads = np.repeat(np.arange(len(fitted)), 5)
            self.graph_ = sparse.csr_matrix((np.full(heads.size, 0.2), (heads, near.ravel())))
            self._a, self._b = 1.577, 0.895
            return self

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Fitted))
    places, place_new = script.parametric_umap(old, new, 0)
    found = layout_scores(old, places, labels[:120], (new, place_new(), labels[120:]))
    assert found["accuracy"] > 0.95
    assert found["new_accuracy"] > 0.95
    assert found["kept"] > 0.3


def test_our_map_is_drawn_judged_and_remembered(tmp_path):
    rows, labels = blobs(140, 5)
    write_vectors(str(tmp_path / "set"), rows, labels=labels)
    command = [
        "bench",
        "map",
        str(tmp_path / "set"),
        "--seed",
        "3",
        "--root",
        str(tmp_path / "root"),
        "--local",
        *BRIEF,
    ]
    for method in ("distspectral", "eigenfunctions"):
        command += ["--method", method]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    ours, raw = json.loads(result.stdout)["results"]
    assert ours["rows"] == 140 - 140 // HELD_OUT_SHARE
    assert ours["accuracy"] > 0.9
    assert ours["new_accuracy"] > 0.9
    assert 0 < ours["map_core_seconds"] < ours["core_seconds"]
    assert raw["method"] == "eigenfunctions"
    lines = (tmp_path / "root/maps.jsonl").read_text()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "root/maps.jsonl").read_text() == lines
    assert "the map" in again.output
