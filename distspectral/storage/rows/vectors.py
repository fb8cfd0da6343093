"""Rows of vectors by number, from an array in memory or from memory-mapped shards: the same two questions.

Shape letters: N rows, D features, B rows asked for.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.frame import Frame
from distspectral.storage.rows.moments import Moments
from distspectral.storage.rows.packed import read_column
from distspectral.storage.rows.shard_rows import ShardRows

MAPPED_BYTES = 1 << 28
"""Most that :class:`FleetingVectors` has mapped and touched at once, unless the caller says otherwise."""


class Vectors(Protocol):
    """(N, D) vectors that can be read by row."""

    @property
    def n_rows(self) -> int:
        """N."""

    @property
    def dim(self) -> int:
        """D."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """(D,) mean of all rows."""

    @property
    def scale(self) -> float | NDArray[np.float64]:
        """Root of the mean variance: dividing by it gives features of unit variance on average.

        Of vectors joined from several kinds, (D,): each feature's is that of its kind.
        """

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows, in any order, with repeats.

        Args:
            rows: (B,) row numbers.

        Returns:
            (B, D), a fresh C-contiguous copy.

        Raises:
            IndexError: a row number is negative or at least N.
        """

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows ``start`` to ``stop``: (stop - start, D), possibly a read-only view.

        Raises:
            IndexError: not 0 <= start <= stop <= N.
        """


@runtime_checkable
class Labeled(Protocol):
    """Vectors that may come with a label each."""

    def labels(self) -> Any:
        """Return the N labels as an array (NumPy or Arrow; integers or strings), None where there are none."""


def check_rows(rows: NDArray[np.int64], n_rows: int) -> None:
    """Raise IndexError where a row number is negative or at least ``n_rows``."""
    if len(rows) and (rows.min() < 0 or rows.max() >= n_rows):
        raise IndexError(f"rows {rows.min()} to {rows.max()} asked for, there are rows 0 to {n_rows - 1}")


def check_range(start: int, stop: int, n_rows: int) -> None:
    """Raise IndexError unless 0 <= start <= stop <= ``n_rows``."""
    if not 0 <= start <= stop <= n_rows:
        raise IndexError(f"rows {start} to {stop} asked for, there are {n_rows}")


class ArrayVectors:
    """Vectors in memory.

    Args:
        array: (N, D), kept as float32 without copying where it already is.
        labels: (N,) integers or strings.
    """

    def __init__(self, array: NDArray[Any], labels: NDArray[Any] | None = None) -> None:
        self._labels = labels
        self._array = np.ascontiguousarray(array, dtype=np.float32)
        self.n_rows, self.dim = self._array.shape

    @functools.cached_property
    def _moments(self) -> Moments:
        return Moments.of(self._array)

    @property
    def mean(self) -> NDArray[np.float64]:
        """(D,) mean of all rows."""
        return self._moments.mean

    @property
    def variances(self) -> NDArray[np.float64]:
        """(D,) the features' variances over all rows."""
        return self._moments.variances

    @property
    def scale(self) -> float:
        """Root of the mean variance."""
        return float(np.sqrt(self._moments.variance))

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows as a fresh copy; see :meth:`Vectors.gather`."""
        check_rows(rows, self.n_rows)
        return np.take(self._array, rows, axis=0)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows as a view; see :meth:`Vectors.block`."""
        check_range(start, stop, self.n_rows)
        return self._array[start:stop]

    def labels(self) -> NDArray[Any] | None:
        """Return the N labels, None where there are none."""
        return self._labels


class MappedVectors:
    """The rows of a finished ``vectors`` artifact, whose counts and moments its manifest tells.

    A shard is opened when a row of it is read: see :class:`~distspectral.storage.rows.shard_rows.ShardRows`. Picklable
    (the manifest is read again) and safe to share between threads.

    Args:
        artifact: written by the stage ``pack``, or by one that encodes.
        only: name of a shard, whose rows alone are then numbered from 0; None for all.

    Attributes:
        origin: (D,) float64 that was subtracted from the rows, by their unit; None where nothing was.

    Raises:
        MissingArtifactError: the artifact is not finished.
    """

    def __init__(self, artifact: Artifact, only: str | None = None) -> None:
        self._artifact, self._only = artifact, only
        self._manifest = artifact.manifest()
        self._shards = [shard for shard in self._manifest.shards if only in (None, shard.name)]
        properties = self._manifest.properties
        self._rows = ShardRows(artifact, self._shards, ["vector"])
        self.n_rows = self._rows.n_rows
        self.dim = int(properties["dim"])
        self.mean = np.asarray(properties["mean"], dtype=np.float64)
        self.scale = float(np.sqrt(properties["variance"]))
        self.dtype: np.dtype[Any] = np.dtype(properties["dtype"])
        self.origin = Frame.of_properties(properties["frame"]).framed_origin if "frame" in properties else None

    def __reduce__(self) -> tuple[type[MappedVectors], tuple[Artifact, str | None]]:
        return MappedVectors, (self._artifact, self._only)

    def ids(self) -> pa.ChunkedArray:
        """Return the N ids (int64 or string)."""
        return self._column("id")

    def labels(self) -> pa.ChunkedArray | None:
        """Return the N labels (int64 or string), None where the source had none."""
        return self._column("label") if self._manifest.properties["has_labels"] else None

    def _column(self, name: str) -> pa.ChunkedArray:
        return read_column(self._artifact, [shard.name for shard in self._shards], name)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows as a fresh copy; see :meth:`Vectors.gather`."""
        check_rows(rows, self.n_rows)
        return self._rows.gather(rows)[0].astype(np.float32, copy=False)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows, a read-only view where one mapped record batch holds them as float32."""
        check_range(start, stop, self.n_rows)
        return self._rows.block(start, stop)[0].astype(np.float32, copy=False)

    def release(self) -> None:
        """Close the shards; they are opened again when a row is read."""
        self._rows.release()


class FleetingVectors:
    """The rows of a finished ``vectors`` artifact, unmapped after each call: pages read once do not stay resident.

    Args:
        artifact: written by the stage ``pack``.
        mapped_bytes: most that is mapped and touched at once, were the rows float32.
    """

    def __init__(self, artifact: Artifact, mapped_bytes: int = MAPPED_BYTES) -> None:
        self._mapped, self._mapped_bytes = MappedVectors(artifact), mapped_bytes
        mapped = self._mapped
        self.n_rows, self.dim, self.mean, self.scale = mapped.n_rows, mapped.dim, mapped.mean, mapped.scale
        self.origin = mapped.origin

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows as a fresh copy; see :meth:`Vectors.gather`."""
        check_rows(rows, self.n_rows)
        found = np.empty((len(rows), self.dim), np.float32)
        order = np.argsort(rows, kind="stable")
        span = max(1, self._mapped_bytes // (4 * self.dim))
        for part in np.split(order, np.searchsorted(rows[order], range(span, self.n_rows, span))):
            if len(part):
                found[part] = self._mapped.gather(rows[part])
                self._mapped.release()
        return found

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows as a copy; see :meth:`Vectors.block`."""
        block = np.array(self._mapped.block(start, stop))
        self._mapped.release()
        return block
