from __future__ import annotations

import numpy as np
import pytest
import torch

from distspectral.errors import ConfigError, TooFewClassesError
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.class_sampling import ClassSampler
from distspectral.training.classes import split_classes

SIZES = (1, 2, 9, 9, 30, 9, 9, 9, 4, 9, 9)  # a singleton, small classes, a large one


def labels() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))


def sampler(classes=None, batch_size=20, rows_per_class=4, seed=3) -> ClassSampler:
    classes = labels() if classes is None else classes
    rows = np.arange(len(classes), dtype=np.float32)[:, None]  # a row's only feature is its number
    return ClassSampler(ArrayVectors(rows), classes, batch_size=batch_size, rows_per_class=rows_per_class, seed=seed)


def test_a_batch_holds_distinct_rows_of_distinct_classes():
    classes = labels()
    one = sampler()
    for step in range(20):
        rows, numbers = one.global_batch(step)
        assert len(np.unique(rows)) == len(rows)
        chosen = [np.unique(classes[rows[numbers == number]]) for number in range(5)]
        assert all(len(found) == 1 for found in chosen), "one class per number"
        assert len(np.unique(chosen)) == 5
        for number, found in enumerate(chosen):
            assert (numbers == number).sum() == min(4, SIZES[int(found[0])])


def test_every_class_is_met_once_a_round_and_all_rows_in_time():
    classes, one = labels(), sampler(batch_size=12, rows_per_class=4)  # 3 of 11 classes: two wait for another round
    met = np.zeros(len(SIZES), int)
    for step in range(3):
        met[np.unique(classes[one.global_batch(step)[0]])] += 1
    assert sorted(met) == [0, 0] + [1] * 9
    seen = np.unique(np.concatenate([one.global_batch(step)[0] for step in range(300)]))
    assert len(seen) == sum(SIZES)


def test_the_step_alone_decides_a_batch():
    one, other = sampler(), sampler()
    late = [other.global_batch(step)[0] for step in (7, 2, 9)]
    for rows, step in zip(late, (7, 2, 9), strict=True):
        assert np.array_equal(one.global_batch(step)[0], rows)
    assert not np.array_equal(one.global_batch(2)[0], one.global_batch(3)[0])
    assert not np.array_equal(one.global_batch(2)[0], sampler(seed=4).global_batch(2)[0])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_take_the_very_batch_of_one(world_size, monkeypatch):
    whole = sampler().batch(5)
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr("distspectral.comm.collectives.rank", lambda rank=rank: rank)
        monkeypatch.setattr("distspectral.comm.collectives.world_size", lambda: world_size)
        parts.append(sampler().batch(5))
    assert torch.equal(torch.cat([part.vectors for part in parts]), whole.vectors)
    assert torch.equal(torch.cat([part.classes for part in parts]), whole.classes)
    assert {part.n_classes for part in parts} == {whole.n_classes} == {5}


def test_rows_of_negative_classes_are_never_drawn():
    classes = labels()
    hidden = np.where(classes < 6, classes, -1)
    drawn = np.concatenate([sampler(hidden).global_batch(step)[0] for step in range(100)])
    assert set(classes[drawn]) == set(range(6))


def test_numbers_without_rows_are_no_classes():
    one = sampler(labels() * 3)
    assert len(one.classes) == len(SIZES)
    assert one.global_batch(0)[1].max() == 4


def test_the_smallest_batch_counts_the_smallest_classes():
    assert sampler(batch_size=12).smallest_batch == 1 + 2 + 4
    assert sampler(batch_size=1000).smallest_batch == 1 + 2 + 4 * 9


@pytest.mark.parametrize(("classes", "batch_size"), [(np.zeros(10, int), 20), (None, 7), (np.full(10, -1), 20)])
def test_fewer_than_two_classes_in_a_batch_are_refused(classes, batch_size):
    with pytest.raises(TooFewClassesError, match=f"train.batch_size = {batch_size}"):
        sampler(classes, batch_size)


@pytest.mark.parametrize(
    ("train_classes", "expected", "last"),
    [("half", [0, 1, 2, -1, -1, 1], 30), ("all", [0, 1, 2, 3, 4, 1], 50), (2, [0, 1, -1, -1, -1, 1], 20)],
)
def test_the_first_classes_in_sorted_order_are_learned(train_classes, expected, last):
    classes, found = split_classes(np.array([10, 20, 30, 40, 50, 20]), train_classes)
    assert classes.tolist() == expected
    assert found == last
    assert type(found) is int


def test_string_labels_are_sorted_as_text():
    classes, last = split_classes(np.array(["b", "a", "c", "a"]), 2)
    assert classes.tolist() == [1, 0, -1, 0]
    assert type(last) is str
    assert last == "b"


def test_labels_that_cannot_be_split_are_refused():
    with pytest.raises(TooFewClassesError, match="3 rows of 1 class"):
        split_classes(np.array([4, 4, 4]), "all")
    with pytest.raises(ConfigError, match="is 3, but there are 2 labels"):
        split_classes(np.array([4, 5]), 3)
