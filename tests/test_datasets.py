from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from distspectral.datasets import Mixture, two_moons, write_digits, write_mixture, write_vectors
from distspectral.storage.source.dataset import Source, SourceConfig
from tests.datasets import read_all


def test_digits_come_back_as_scikit_learn_has_them(tmp_path: Path) -> None:
    paths = write_digits(str(tmp_path))
    source = Source.open(SourceConfig(path=paths, id_column="id", label_column="label", scale=1 / 16))
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(read_all(source), (pixels / 16).astype(np.float32))
    assert [shard.n_rows for shard in source.shards] == [450, 449, 449, 449]
    blocks = [block for shard in source.shards for block in source.read_blocks(shard)]
    assert pa.concat_arrays([block.labels for block in blocks]).to_pylist() == labels.tolist()
    assert pa.concat_arrays([block.ids for block in blocks]).to_pylist() == list(range(1797))


def test_uneven_shards_hold_the_sizes_asked_for(tmp_path: Path) -> None:
    vectors, _ = two_moons(10)
    write_vectors(str(tmp_path), vectors, ids=np.array(list("abcdefghij")), sizes=(1, 7, 2))
    source = Source.open(SourceConfig(path=str(tmp_path), id_column="id"))
    assert [shard.n_rows for shard in source.shards] == [1, 7, 2]
    assert source.id_type == "string"


def test_lengths_that_disagree_are_refused(tmp_path: Path) -> None:
    vectors, labels = two_moons(10)
    with pytest.raises(ValueError, match="sizes sum to 9, but id has 10 rows"):
        write_vectors(str(tmp_path), vectors, sizes=(4, 5))
    with pytest.raises(ValueError, match="label has 9 rows"):
        write_vectors(str(tmp_path), vectors, labels=labels[:9])


def test_two_moons_follow_the_seed() -> None:
    (first, labels), (again, _), (other, _) = two_moons(50, seed=1), two_moons(50, seed=1), two_moons(50, seed=2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert set(labels.tolist()) == {0, 1}


def test_a_mixture_is_the_same_however_it_is_cut(tmp_path: Path) -> None:
    mixture = Mixture(12, intrinsic_dim=3, seed=4)
    whole, labels = mixture.rows(0, 40_000)
    np.testing.assert_array_equal(mixture.rows(16_380, 33_000)[0], whole[16_380:33_000])
    write_mixture(str(tmp_path), mixture, 20_000, rows_per_shard=7_000, dtype="float16")
    source = Source.open(SourceConfig(path=str(tmp_path), id_column="id", label_column="label"))
    assert [shard.n_rows for shard in source.shards] == [7_000, 7_000, 6_000]
    np.testing.assert_array_equal(read_all(source), whole[:20_000].astype(np.float16).astype(np.float32))
    assert set(labels.tolist()) == set(range(20))


def test_a_mixture_has_the_intrinsic_dimension_asked_for() -> None:
    rows = Mixture(40, intrinsic_dim=3, n_clusters=1, noise=0.0).rows(0, 16_000)[0].astype(np.float64)
    near = np.argsort(np.square(rows - rows[0]).sum(axis=1))[:30]
    values = np.linalg.svd(rows[near] - rows[near].mean(axis=0), compute_uv=False)
    assert values[3] < 0.2 * values[2]
