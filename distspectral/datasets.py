"""Datasets as shards on disk: scikit-learn's digits, two moons, any arrays at hand, or a mixture of any size."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_moons

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.columns import write_parquet


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

    def rows(start: int, stop: int) -> dict[str, NDArray[Any]]:
        return {key: np.ascontiguousarray(column[start:stop]) for key, column in columns.items()}

    return write_shards(folder, sizes, rows)


def write_shards(
    folder: str, sizes: Sequence[int], rows: Callable[[int, int], Mapping[str, NDArray[Any]]], *, keep: bool = False
) -> list[str]:
    """Write Parquet shards, one in memory at a time; return their paths in row order.

    Args:
        folder: local path or URI; made if absent. Each shard appears whole or not at all.
        sizes: rows of each shard. Where an earlier call wrote more shards, the others stay.
        rows: called with the first row of a shard and the one after its last, returns its columns by name.
        keep: a shard that is there already, instead of writing it again.
    """
    artifact = Artifact(folder)
    artifact.filesystem.create_dir(artifact.path, recursive=True)
    names = [f"part-{index:05d}.parquet" for index in range(len(sizes))]
    for name, size, stop in zip(names, sizes, np.cumsum(sizes).tolist(), strict=True):
        if not (keep and artifact.has(name)):
            artifact.write_file(name, functools.partial(write_parquet, columns=rows(stop - size, stop)))
    return [f"{folder.rstrip('/')}/{name}" for name in names]


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


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Clustered rows near a curved manifold of known dimension, any number of them, each a function of its number.

    A latent point z is drawn from a mixture of Gaussians in M dimensions; the row is x = cos(z W + b) A, a smooth map
    with random frequencies W and phases b, plus white noise. Rows are made in blocks seeded by (seed, block), so row i
    is the same however rows are cut and however many there are.

    Attributes:
        dim: D, features of a row.
        intrinsic_dim: M.
        n_clusters: components of the mixture, equally likely.
        spread: standard deviation of the components' means, whose own is 1.
        noise: standard deviation of the white noise, relative to that of a feature.
        seed: of everything.
    """

    dim: int
    intrinsic_dim: int = 8
    n_clusters: int = 20
    spread: float = 2.0
    noise: float = 0.01
    seed: int = 0

    @functools.cached_property
    def _map(self) -> tuple[NDArray[np.float64], ...]:
        rng = np.random.default_rng([self.seed, 0])
        n_waves = 2 * max(self.dim, self.intrinsic_dim)
        means = self.spread * rng.standard_normal((self.n_clusters, self.intrinsic_dim))
        frequencies = 0.25 * rng.standard_normal((self.intrinsic_dim, n_waves))
        phases = rng.uniform(0, 2 * np.pi, n_waves)
        amplitudes = rng.standard_normal((n_waves, self.dim)) / np.sqrt(n_waves / 2)
        return means, frequencies, phases, amplitudes

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return rows ``start`` to ``stop``: vectors (B, D) and the component (B,) each was drawn from."""
        first = start // MIXTURE_BLOCK
        parts = [self._block(block) for block in range(first, -(-stop // MIXTURE_BLOCK))]
        cut = slice(start - first * MIXTURE_BLOCK, stop - first * MIXTURE_BLOCK)
        return np.concatenate([part[0] for part in parts])[cut], np.concatenate([part[1] for part in parts])[cut]

    def _block(self, block: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        means, frequencies, phases, amplitudes = self._map
        rng = np.random.default_rng([self.seed, 1, block])
        labels = rng.integers(0, self.n_clusters, MIXTURE_BLOCK)
        latent = means[labels] + rng.standard_normal((MIXTURE_BLOCK, self.intrinsic_dim))
        vectors = (np.cos(latent @ frequencies + phases) @ amplitudes).astype(np.float32)
        vectors += np.float32(self.noise) * rng.standard_normal(vectors.shape, np.float32)
        return vectors, labels


MIXTURE_BLOCK = 1 << 14


def write_mixture(
    folder: str, mixture: Mixture, n_rows: int, *, rows_per_shard: int = 1 << 18, dtype: str = "float32"
) -> list[str]:
    """Write the first rows of a mixture as Parquet shards, one shard in memory at a time; return their paths.

    Args:
        folder: local path or URI; made if absent. A shard that is already there is kept.
        mixture: what to draw from.
        n_rows: N.
        rows_per_shard: rows of each shard but the last.
        dtype: type of the vectors.
    """

    def rows(start: int, stop: int) -> dict[str, NDArray[Any]]:
        vectors, labels = mixture.rows(start, stop)
        return {"id": np.arange(start, stop), "vector": vectors.astype(dtype), "label": labels}

    sizes = [min(rows_per_shard, n_rows - start) for start in range(0, n_rows, rows_per_shard)]
    return write_shards(folder, sizes, rows, keep=True)
