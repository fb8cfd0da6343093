"""From the settings of a metric to its training: which loss, and what the layer's outputs are then compared by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import ConfigError
from distspectral.objectives.class_softmax import ClassSoftmaxObjective
from distspectral.objectives.dscl import DSCLObjective
from distspectral.spectral.class_softmax import metric, unit_rows
from distspectral.spectral.rayleigh import gram
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.dscl import DSCLSettings, build_model
from distspectral.training.loop import WindowRecorder

DIM = 5
TRAIN = {"batch_size": 24, "max_steps": 40, "window_steps": 5, "learning_rate": 3e-3, "device": "cpu"}


def settings(**dscl):
    section = {"n_components": 6, "rows_per_class": 4, "train_classes": "all"} | dscl
    return DSCLSettings(network={"hidden": (16,)}, dscl=section, train=TRAIN)


def data() -> ArrayVectors:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(12), 8)
    return ArrayVectors(rng.standard_normal((12, DIM))[classes] + 0.5 * rng.standard_normal((96, DIM)), classes)


def test_the_loss_is_the_papers_unless_another_is_named():
    kinds = [type(one.objective(build_model(DIM, one))) for one in (settings(), settings(loss="softmax"))]
    assert kinds == [DSCLObjective, ClassSoftmaxObjective]


def test_training_lowers_the_softmax_and_may_be_wider_than_a_batch():
    observer = WindowRecorder()
    settings(loss="softmax", n_components=30).trainer(data()).fit(observer)
    losses = [record["loss"] for record in observer.history]
    assert losses[-1] < 0.7 * losses[0]


def test_the_layers_outputs_have_the_cosines_of_the_softmaxs_metric():
    chosen = settings(loss="softmax", ridge=0.3)
    model = build_model(DIM, chosen)
    f = torch.from_numpy(np.random.default_rng(1).standard_normal((40, 6)))
    rows, of_rows = unit_rows(f), torch.ones(40, dtype=torch.float64)
    model.orthonormal.take(model.orthonormal.averaged(gram(rows, of_rows) / 40))
    inverse = metric(gram(rows, of_rows), of_rows.sum(), 0.3)
    lengths = ((rows @ inverse) * rows).sum(1).sqrt()
    expected = rows @ inverse @ rows.T / lengths / lengths[:, None]
    found = unit_rows(model.orthonormal(f))
    torch.testing.assert_close(found @ found.T, expected)


@pytest.mark.parametrize(
    ("n_classes", "rows_per_class", "width"), [(5, 8, 5), (2, 8, 2), (40, 8, 12), (6, 1, 3)], ids=str
)
def test_a_width_that_nobody_gives_is_the_number_of_classes_in_a_batch(n_classes, rows_per_class, width):
    labels = np.repeat(np.arange(n_classes), rows_per_class)
    made = DSCLSettings(network={"hidden": (8,)}, dscl={"train_classes": "all"}, train={"batch_size": 100})
    vectors = ArrayVectors(np.random.default_rng(0).normal(size=(len(labels), 3)).astype(np.float32), labels)
    assert made.width(labels) == made.facts(vectors)["n_components"] == width
    assert made.trainer(vectors).model.network(torch.zeros(1, 3)).shape[1] == width
    assert made.shape == {}, "another run's labels may be as many"


@pytest.mark.parametrize(("batch_size", "remedy"), [(100, "dscl.rows_per_class"), (16, "train.batch_size")])
def test_the_remedy_of_a_width_that_spans_a_batch_makes_batches_larger(batch_size, remedy):
    labels = np.repeat(np.arange(5), 40)
    vectors = ArrayVectors(np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32), labels)

    def trainer(**changes):
        dscl = {"train_classes": "all", "n_components": 16 if batch_size == 16 else 40}
        dscl["rows_per_class"] = changes.get("rows_per_class", 8)
        train = {"batch_size": changes.get("batch_size", batch_size)}
        return DSCLSettings(network={"hidden": (8,)}, dscl=dscl, train=train).trainer(vectors)

    with pytest.raises(ConfigError, match=rf"or raise {remedy}$") as caught:
        trainer()
    assert caught.value.parameters == ("dscl.n_components", remedy)
    trainer(**{remedy.partition(".")[2]: 2 * (8 if remedy.startswith("dscl") else batch_size)})
