"""The comparison with other losses: a fair split, one loop for all, an honest summary; and the cost of the loss."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from distspectral.bench import dscl as bench
from distspectral.bench.dscl_cost import cost, resnet18
from distspectral.cli.app import app
from distspectral.datasets import write_vectors
from distspectral.errors import ConfigError
from distspectral.spectral import DSCLLoss

SIDE = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty classes of blurred 8 x 8 images, ten rows each."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(20), 10))
    patterns = 255 * rng.random((20, SIDE * SIDE))
    pixels = (0.5 * patterns[labels] + 0.5 * 255 * rng.random((200, SIDE * SIDE))).astype(np.uint8)
    path = tmp_path_factory.mktemp("images")
    write_vectors(str(path), pixels, labels=labels, n_shards=2)
    return str(path)


def of(folder):
    return bench.Comparison(folder, 15, (1, SIDE, SIDE), width=8, batch_size=60)


def test_classes_to_judge_by_are_never_learned_from(folder):
    images = bench.read_images(folder, 15, validate=False)
    assert np.unique(images.train.labels()).tolist() == list(range(15))
    assert np.unique(images.test_classes).tolist() == list(range(5))
    assert (images.train.n_rows, images.test.n_rows) == (150, 50)


def test_validation_judges_by_training_classes_only(folder):
    whole, split = (bench.read_images(folder, 15, validate) for validate in (False, True))
    assert np.unique(split.train.labels()).tolist() == list(range(12))
    assert (split.train.n_rows, split.test.n_rows) == (120, 30)
    unseen = {row.tobytes() for row in whole.test.block(0, 50)}
    read = [row.tobytes() for part in (split.train, split.test) for row in part.block(0, part.n_rows)]
    assert not unseen & set(read)


@pytest.mark.parametrize("name", bench.RECIPES)
def test_every_loss_learns_in_the_same_loop(name, folder, tmp_path):
    if name != "dscl":
        pytest.importorskip("pytorch_metric_learning")
    heard = []
    (result,) = bench.compare_losses(of(folder), tmp_path, [name], [0], [20], on_result=heard.append)
    assert heard == [result]
    assert result["plain"]["recall_at"]["1"] > 0.35, "one in five by chance"
    assert set(result["plain"]) == set(result["spectral_step"]) == {"recall_at", "nmi", "map_at_r"}
    again, other = bench.compare_losses(of(folder), tmp_path / "new", [name], [0, 1], [20])
    assert again["plain"] == result["plain"]
    assert other["plain"] != result["plain"]


def test_what_is_in_the_file_is_not_trained_again(folder, tmp_path):
    heard = []
    first = bench.compare_losses(of(folder), tmp_path, ["dscl"], [0], [1, 2], on_result=heard.append)
    assert heard == first
    again = bench.compare_losses(of(folder), tmp_path, ["dscl"], [0, 1], [1], on_result=heard.append)
    assert again[0] == first[0]
    assert heard[2:] == again[1:]
    for change in ({"width": 6}, {"rows_per_class": 3}, {"validate": True}):
        changed = dataclasses.replace(of(folder), **change)
        assert bench.compare_losses(changed, tmp_path, ["dscl"], [0], [1]) != first[:1]
    assert bench.compare_losses(of(folder), tmp_path, ["dscl"], [0], [1], 1e-3) != first[:1]


def test_the_loss_by_its_name():
    assert isinstance(bench.make_loss(bench.RECIPES["dscl"], 5), DSCLLoss)
    pytest.importorskip("pytorch_metric_learning")
    assert next(iter(bench.make_loss(bench.RECIPES["proxy-anchor"], 5).parameters())).shape == (5, bench.WIDTH)


def test_an_unknown_loss_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="'triplet' is none of dscl, dscl-softmax, proxy-anchor"):
        bench.compare_losses(of(folder), tmp_path, ["triplet"], [0], [1])


def result(value, loss="x", steps=300):
    scores = {"recall_at": {"1": value}, "nmi": 2 * value, "map_at_r": 0.0}
    return {"loss": loss, "steps": steps, "plain": scores, "spectral_step": scores, "core_seconds": 10 * value}


def test_a_summary_has_mean_and_sample_deviation():
    found = bench.summary([result(0.1), result(0.2), result(0.3)])[300]["x"]
    assert found["R@1"] == pytest.approx((0.2, 0.1))
    assert found["NMI"] == pytest.approx((0.4, 0.2))
    assert bench.summary([result(0.1)])[300]["x"]["R@1"] == (0.1, 0.0)


def test_the_table_goes_by_steps_and_then_by_recall():
    found = [result(0.4, steps=900), result(0.1), result(0.2), result(0.3, "y")]
    _, _, *rows = bench.table(found).splitlines()
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| 300", "y", ".300"],
        ["| 300", "x", ".150 (.071)"],
        ["| 900", "x", ".400"],
    ]
    assert rows[1].endswith(" | 2 |"), "core-seconds"


def test_the_command_prints_a_table_or_json(folder):
    arguments = ["bench", "dscl", folder, "--loss", "dscl", "--seed", "0", "--steps", "2"]
    arguments += ["--train-classes", "15", "--side", str(SIDE)]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.stderr
    assert "MAP@R" in printed.stdout
    assert "dscl, seed 0" in printed.stderr
    assert "| 2 | dscl | ." in printed.stdout
    values = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert set(values["summary"]["2"]) == {"dscl"}


def test_cost_is_told_beside_a_resnet18s():
    assert sum(p.numel() for p in resnet18(512).parameters()) == pytest.approx(11.4e6, rel=0.01)
    found = cost((64, 128), 16, image_side=32, network_rows=4, device=torch.device("cpu"))
    assert list(found["seconds"]) == [64, 128]
    assert found["doubling"] == [found["seconds"][128]["objective"] / found["seconds"][64]["objective"]]
    expected = found["seconds"][128]["objective"] / found["resnet18_step_seconds"]
    assert found["share_of_step"] == pytest.approx(expected)
