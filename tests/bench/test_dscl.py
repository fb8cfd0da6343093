"""The comparison with other losses: a fair split, one loop for all, an honest summary; and the cost of the loss."""

from __future__ import annotations

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
def test_every_loss_learns_in_the_same_loop(name, folder):
    if name != "dscl":
        pytest.importorskip("pytorch_metric_learning")
    heard = []
    arguments = {"steps": 20, "train_classes": 15, "image_shape": (1, SIDE, SIDE), "width": 8, "batch_size": 60}
    (result,) = bench.compare_losses(folder, [name], [0], on_result=heard.append, **arguments)
    assert heard == [result]
    assert result["plain"]["recall_at"]["1"] > 0.35, "one in five by chance"
    assert set(result["plain"]) == set(result["spectral_step"]) == {"recall_at", "nmi", "map_at_r"}
    again, other = bench.compare_losses(folder, [name], [0, 1], **arguments)
    assert again["plain"] == result["plain"]
    assert other["plain"] != result["plain"]


def test_the_loss_by_its_name():
    assert isinstance(bench.make_loss(bench.RECIPES["dscl"], 5), DSCLLoss)
    pytest.importorskip("pytorch_metric_learning")
    assert next(iter(bench.make_loss(bench.RECIPES["proxy-anchor"], 5).parameters())).shape == (5, bench.WIDTH)


def test_an_unknown_loss_is_refused(folder):
    with pytest.raises(ConfigError, match="'triplet' is none of dscl, proxy-anchor"):
        bench.compare_losses(folder, ["triplet"], [0], steps=1, train_classes=15, image_shape=(1, SIDE, SIDE))


def test_a_summary_has_mean_and_sample_deviation():
    def result(value):
        scores = {"recall_at": {"1": value}, "nmi": 2 * value, "map_at_r": 0.0}
        return {"loss": "x", "plain": scores, "spectral_step": scores}

    found = bench.summary([result(0.1), result(0.2), result(0.3)])["x"]
    assert found["R@1"] == pytest.approx((0.2, 0.1))
    assert found["NMI"] == pytest.approx((0.4, 0.2))
    assert bench.summary([result(0.1)])["x"]["R@1"] == (0.1, 0.0)


def test_the_command_prints_a_table_or_json(folder):
    arguments = ["bench", "dscl", folder, "--loss", "dscl", "--seed", "0", "--steps", "2"]
    arguments += ["--train-classes", "15", "--side", str(SIDE)]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.stderr
    assert "MAP@R" in printed.stdout
    assert "dscl, seed 0" in printed.stderr
    values = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert set(values["summary"]) == {"dscl"}


def test_cost_is_told_beside_a_resnet18s():
    assert sum(p.numel() for p in resnet18(512).parameters()) == pytest.approx(11.4e6, rel=0.01)
    found = cost((64, 128), 16, image_side=32, network_rows=4, device=torch.device("cpu"))
    assert list(found["seconds"]) == [64, 128]
    assert found["doubling"] == [found["seconds"][128]["objective"] / found["seconds"][64]["objective"]]
    expected = found["seconds"][128]["objective"] / found["resnet18_step_seconds"]
    assert found["share_of_step"] == pytest.approx(expected)
