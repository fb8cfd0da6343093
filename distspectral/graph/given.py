"""A graph that was made elsewhere, on disk: neighbour lists of all rows, checked, some rows at a time.

Its forms are arrays ``ids`` with ``distances``, ``squared_distances`` or ``affinities``, (N, K) each, and matrices
(N, N) in compressed rows, SciPy's and AnnData's. What comes out are lists as a search gives them.

Shape letters: N rows, B rows asked for, K neighbours, C entries of the longest row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs

from distspectral.errors import ConfigError, SourceError, first_line
from distspectral.graph.config import MAX_NEIGHBORS
from distspectral.graph.search.lists import Neighbors, top_k
from distspectral.storage.filesystems import resolve
from distspectral.storage.source.arrays import MATRIX, Arrays, SparseRows, open_folder, open_hdf5, open_npz

FIRST_ROWS = 1 << 10
"""Looked at for what the lists are like: whether they hold the row itself, whether values rise."""
LOOK_ROWS = 1 << 16
"""Of affinities that are looked through for the largest at a time."""
KEY = "graph.path"
FORMS = (
    "a folder of ids.npy and distances.npy or squared_distances.npy, a .npz of such arrays, a matrix of "
    "scipy.sparse.save_npz, or an .h5ad file"
)
SMALLEST = float(np.finfo(np.float32).tiny)

Values = Literal["distances", "squared_distances", "affinities"]


class _Lists(Protocol):
    """Lists that are read forwards: ids (B, C), negative where there is none, and values (B, C)."""

    n_rows: int
    width: int
    values: Values

    def take(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...


@dataclasses.dataclass(frozen=True)
class GivenGraph:
    """A graph on disk whose sizes are known; picklable, holds no open files.

    Attributes:
        uri: as messages name it.
        n_rows: N.
        n_neighbors: K: that of the longest list, without the row itself where lists hold it.
        values: what lies beside the neighbours.
        is_sequential: whether a row is reached by reading those before it.
        largest: affinity, which the others are divided by.
    """

    uri: str
    n_rows: int
    n_neighbors: int
    values: Values
    is_sequential: bool
    largest: float = 1.0

    @classmethod
    def open(cls, uri: str, *, precomputed: bool) -> GivenGraph:
        """Look at the file's sizes and its first rows.

        Args:
            uri: file or folder.
            precomputed: whether affinities are wanted, else distances.

        Raises:
            ConfigError: there is nothing, or nothing of a form that is known.
            SourceError: the first rows are no lists.
            MissingDependencyError: h5py is not installed.
        """
        with _opened(uri, precomputed) as lists:
            ids, values = lists.take(0, min(FIRST_ROWS, lists.n_rows))
        own = (ids == np.arange(len(ids))[:, None]).any(axis=1)
        n_neighbors = lists.width - int(own.mean() > 0.5)
        if not 1 <= n_neighbors <= MAX_NEIGHBORS:
            raise ConfigError(
                f"{KEY}: {uri} has lists of up to {n_neighbors:,} neighbours, expected 1 to {MAX_NEIGHBORS:,}; keep "
                "the nearest of each row",
                [KEY],
            )
        if lists.values != "affinities" and isinstance(lists, _Pair) and _falls(ids, values):
            raise SourceError(
                f"{uri}: {lists.values} fall along the lists, as similarities do; give distances, nearest first, or "
                "affinities with affinity.kind = precomputed",
                [KEY, "affinity.kind"],
            )
        return cls(uri, lists.n_rows, n_neighbors, lists.values, uri.endswith(".npz"))

    def require_rows(self, n_rows: int) -> None:
        """Refuse a graph of other rows.

        Raises:
            ConfigError: it has another number of them.
        """
        if self.n_rows != n_rows:
            raise ConfigError(
                f"{KEY}: {self.uri} is of {self.n_rows:,} rows, but data.path has {n_rows:,} that can be used; give "
                "the graph of exactly these rows, in their order",
                [KEY, "data.path"],
            )

    def with_largest(self) -> GivenGraph:
        """Return the same graph, knowing its largest affinity; distances need none, affinities one pass."""
        if self.values != "affinities":
            return self
        largest = 0.0
        with _opened(self.uri, True) as lists:
            for start in range(0, self.n_rows, LOOK_ROWS):
                ids, values = lists.take(start, min(start + LOOK_ROWS, self.n_rows))
                own = np.arange(start, start + len(ids))[:, None]
                known = (ids >= 0) & (ids != own) & np.isfinite(values)
                largest = max(largest, float(np.max(values, initial=0.0, where=known)))
        return dataclasses.replace(self, largest=largest or 1.0)

    def blocks(self, spans: list[tuple[int, int]]) -> Iterator[Neighbors]:
        """Yield checked lists of each span of rows, (start, stop), in ascending order: as :func:`top_k` gives them.

        Of affinities, the squared distance is minus the logarithm.

        Raises:
            SourceError: a neighbour is none of the rows, a value is none, or a row has no neighbour.
        """
        with _opened(self.uri, self.values == "affinities") as lists:
            for start, stop in spans:
                yield checked(start, *lists.take(start, stop), self)


def checked(start: int, ids: NDArray[np.int64], values: NDArray[np.float64], graph: GivenGraph) -> Neighbors:
    """Return lists of rows as a search gives them: ascending, without the row itself and repeats.

    Args:
        start: number of the first row.
        ids: (B, C), negative: none.
        values: (B, C).
        graph: which they are of.

    Raises:
        SourceError: see :meth:`GivenGraph.blocks`.
    """
    own = np.arange(start, start + len(ids))
    missing = (ids < 0) | (ids == own[:, None])
    if graph.values != "affinities":  # what is infinitely far is no neighbour
        missing |= np.isposinf(values)
    values = np.where(missing, 0, values)
    _refuse(ids >= graph.n_rows, ids, start, graph, f"is no row of {graph.n_rows:,}; number rows from 0 in their order")
    wrong = ~((values >= 0) & np.isfinite(values))
    _refuse(wrong, values, start, graph, f"is none of the {graph.values}; give finite numbers from 0 on")
    if graph.values == "affinities":
        missing |= values == 0
        squared = -np.log(np.maximum(values / graph.largest, SMALLEST))
    else:
        squared = values if graph.values == "squared_distances" else np.square(values)
    beyond = squared > np.finfo(np.float32).max
    _refuse(beyond, values, start, graph, "has a square beyond float32; scale the distances")
    found = top_k(
        np.where(missing, -1, ids), np.where(missing, np.inf, squared).astype(np.float32), own, graph.n_neighbors
    )
    if len(lonely := np.flatnonzero(np.isinf(found[1][:, 0]))):
        raise SourceError(
            f"{graph.uri}: row {start + lonely[0]:,} has no neighbour but itself, so no function can tell where it "
            "belongs; give it one, or leave the row out of graph and data",
            [KEY],
        )
    return found


def fingerprint(uri: str, *, precomputed: bool) -> str:
    """Return the digest of what the graph's files are called, of their sizes and times of change.

    Raises:
        ConfigError: there is nothing.
    """
    infos = [info for info in _infos(uri) if info.type == fs.FileType.File]
    told = sorted((info.base_name, info.size, info.mtime_ns) for info in infos)
    return hashlib.sha256(repr((told, precomputed)).encode()).hexdigest()[:16]


class _Pair:
    """Arrays ``ids`` and values of the same shape (N, C)."""

    def __init__(self, arrays: Arrays, uri: str, wanted: tuple[Values, ...]) -> None:
        found = next((name for name in wanted if name in arrays), None)
        if found is None:
            raise ConfigError(
                f"{KEY}: {uri} has ids and {', '.join(sorted(set(arrays) - {'ids'})) or 'nothing else'}, expected "
                f"{' or '.join(wanted)} beside them, by affinity.kind",
                [KEY, "affinity.kind"],
            )
        self.values: Values = found
        self._ids, self._values = arrays["ids"], arrays[found]
        shape = self._ids.shape
        if len(shape) != 2 or shape != self._values.shape or self._ids.dtype.kind not in "iu":
            raise ConfigError(
                f"{KEY}: {uri} has ids of shape {shape}, {self._ids.dtype}, and {found} of shape {self._values.shape}; "
                "expected integers, and the shape (rows, neighbours) of both",
                [KEY],
            )
        self.n_rows, self.width = shape

    def take(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        ids = self._ids.take(start, stop)
        if ids.dtype == np.uint64:  # -1 in it is no row either
            ids = np.minimum(ids, np.uint64(np.iinfo(np.int64).max))
        return ids.astype(np.int64), self._values.take(start, stop).astype(np.float64)


class _Matrix:
    """A matrix in compressed rows."""

    def __init__(self, rows: SparseRows, values: Values) -> None:
        self._rows, self.values = rows, values
        self.n_rows, self.width = rows.shape[0], rows.longest

    def take(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        counts, columns, values = self._rows.entries(start, stop)
        there = np.arange(self.width) < counts[:, None]
        ids, found = np.full(there.shape, -1, np.int64), np.full(there.shape, np.inf)
        ids[there], found[there] = columns, values
        return ids, found


@contextlib.contextmanager
def _opened(uri: str, precomputed: bool) -> Iterator[_Lists]:
    """Open a graph of any form.

    Raises:
        ConfigError, SourceError, MissingDependencyError: see :meth:`GivenGraph.open`.
    """
    filesystem, path = resolve(uri)
    kind = _infos(uri)[0].type
    try:
        with contextlib.ExitStack() as opened:
            if kind == fs.FileType.Directory:
                arrays = opened.enter_context(open_folder(filesystem, path))
            elif uri.endswith((".npz", ".h5ad", ".h5")):
                stream = opened.enter_context(filesystem.open_input_file(path))
                reader = open_npz if uri.endswith(".npz") else open_hdf5
                arrays = opened.enter_context(reader(stream, uri))
            else:
                arrays = {}
            yield _lists(arrays, uri, precomputed)
    except (ValueError, OSError) as error:
        if isinstance(error, (ConfigError, SourceError)):
            raise
        raise SourceError(f"{uri}: cannot be read as a graph ({first_line(error)}); write it again", [KEY]) from error


def _lists(arrays: Arrays, uri: str, precomputed: bool) -> _Lists:
    if "ids" in arrays:
        return _Pair(arrays, uri, ("affinities",) if precomputed else ("squared_distances", "distances"))
    values: Values = "affinities" if precomputed else "distances"
    rows = arrays.get("obsp/connectivities" if precomputed else "obsp/distances")
    if set(MATRIX) <= arrays.keys() and {"shape", "format"} <= arrays.keys():
        form = arrays["format"].take(0, 1)[0]
        form = form.decode() if isinstance(form, bytes) else str(form)
        if form != "csr":
            raise ConfigError(
                f"{KEY}: {uri} holds a matrix of form {form}, whose rows are not together; save it as "
                "scipy.sparse.save_npz(FILE, matrix.tocsr())",
                [KEY],
            )
        rows = SparseRows(arrays, tuple(arrays["shape"].take(0, 2).tolist()))
    if not isinstance(rows, SparseRows):
        there = ", ".join(sorted(arrays)) or "no array"
        raise ConfigError(f"{KEY}: {uri} is no graph of {values} (it has {there}); expected {FORMS}", [KEY])
    if rows.shape[0] != rows.shape[1]:
        raise ConfigError(
            f"{KEY}: {uri} holds a matrix of shape {rows.shape}, expected a row and a column a row", [KEY]
        )
    return _Matrix(rows, values)


def _infos(uri: str) -> list[fs.FileInfo]:
    """Return what stands at a place, and in it."""
    filesystem, path = resolve(uri)
    info = filesystem.get_file_info(path.rstrip("/"))
    if info.type == fs.FileType.NotFound:
        raise ConfigError(f"{KEY}: {uri} does not exist; expected {FORMS}", [KEY])
    inside = filesystem.get_file_info(fs.FileSelector(info.path)) if info.type == fs.FileType.Directory else []
    return [info, *inside]


def _falls(ids: NDArray[np.int64], values: NDArray[np.float64]) -> bool:
    """Whether most lists have their largest value first."""
    steps = np.diff(np.where(ids < 0, np.nan, values), axis=1)
    return bool(np.mean((np.nan_to_num(steps) <= 0).all(axis=1) & (np.nan_to_num(steps) < 0).any(axis=1)) > 0.5)


def _refuse(bad: NDArray[np.bool_], found: NDArray[np.generic], start: int, graph: GivenGraph, problem: str) -> None:
    if bad.any():
        row, place = np.argwhere(bad)[0]
        raise SourceError(
            f"{graph.uri}: row {start + row:,}, neighbour {place}: {found[row, place]} {problem}", parameters=[KEY]
        )
