"""Small datasets as shards on disk: scikit-learn's bundled digits, two moons, or any arrays at hand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_moons

from distspectral.storage.artifacts import Artifact
from distspectral.storage.columns import write_parquet


def write_vectors(
    folder: str,
    vectors: NDArray[Any],
    *,
    labels: NDArray[Any] | None = None,
    ids: NDArray[Any] | None = None,
    n_shards: int = 1,
    sizes: Sequence[int] | None = None,
) -> list[str]:
    """Write arrays as Parquet shards with the columns ``id``, ``vector`` and, if given, ``label``.

    Args:
        folder: local path or URI; made if absent. Each shard appears whole or not at all.
        vectors: (N, D) of float16, float32, float64 or uint8; the type is kept.
        labels: (N,) integers or strings.
        ids: (N,) unique integers or strings; row numbers by default.
        n_shards: how many shards of nearly equal size.
        sizes: rows of each shard instead, summing to N.

    Returns:
        Paths of the shards in row order.

    Raises:
        ValueError: the lengths do not agree.
    """
    n_rows = len(vectors)
    if sizes is None:
        sizes = [len(part) for part in np.array_split(np.arange(n_rows), n_shards)]
    columns = {"id": np.arange(n_rows) if ids is None else ids, "vector": vectors}
    if labels is not None:
        columns["label"] = labels
    for name, column in columns.items():
        if sum(sizes) != len(column):
            raise ValueError(f"sizes sum to {sum(sizes)}, but {name} has {len(column)} rows; they must agree")
    artifact = Artifact(folder)
    artifact.filesystem.create_dir(artifact.path, recursive=True)
    stops = np.cumsum(sizes)
    paths = []
    for index, (size, stop) in enumerate(zip(sizes, stops, strict=True)):
        name = f"part-{index:05d}.parquet"
        part = {key: np.ascontiguousarray(column[stop - size : stop]) for key, column in columns.items()}
        artifact.write_file(name, functools.partial(write_parquet, columns=part))
        paths.append(f"{folder.rstrip('/')}/{name}")
    return paths


def write_digits(folder: str, n_shards: int = 4) -> list[str]:
    """Write the 1,797 handwritten digits of scikit-learn: 64 pixels of 0 to 16 as uint8, int64 ids and labels.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    pixels, labels = load_digits(return_X_y=True)
    return write_vectors(folder, pixels.astype(np.uint8), labels=labels.astype(np.int64), n_shards=n_shards)


def two_moons(n_rows: int, noise: float = 0.05, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return two interleaved half circles: vectors (N, 2) float32 and labels (N,) in {0, 1}, rows shuffled."""
    vectors, labels = make_moons(n_rows, noise=noise, random_state=seed)
    return vectors.astype(np.float32), labels.astype(np.int64)
