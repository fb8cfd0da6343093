"""Fixed-width columns of an artifact's shards, by row; a shard is opened when a row of it is read.

A shard's receipt says where in the file its values lie. So a shard on a disk is mapped without parsing it, and of one
in an object store the bytes asked for are fetched, until a copy on the node is the cheaper way. Shards that together
are larger than the node's cache are never copied: each copy would drive out another that the next rows are in.

Shape letters: N rows of all shards together, B rows asked for, W width of a column.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from distspectral.errors import DamagedArtifactError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.receipts import write_shard
from distspectral.storage.rows.columns import to_column

LAYOUT = "layout"
"""Detail of a shard's receipt: by column its ``dtype``, ``width`` and ``batches``, (rows, place in the file) each."""

OPEN_SHARDS = 8192
"""Shards that stay open; Linux grants a process 65,530 maps."""
OPEN_SHARE = 0.5
"""Of the cache's limit, copies that stay open: they take up the node's disk even when the cache has dropped them."""
FETCH_THREADS = 8
"""Requests under way at once."""
GAP_BYTES = 1 << 18
"""Bytes between two rows that are fetched along rather than asked for twice."""
PIECE_SHARE = 1 / 8
"""Of a shard, fetched piece by piece before it is copied to the node."""
PIECE_BYTES = 1 << 20
"""What could be fetched while one request is answered: so many bytes of a shard allow one piece."""


def layout(stream: IO[bytes], columns: Iterable[str]) -> dict[str, Any]:
    """Return the receipt's detail :data:`LAYOUT` of fixed-size lists in a finished, uncompressed Arrow IPC file.

    Args:
        stream: the file, open for reading.
        columns: their names.
    """
    stream.flush()
    content = pa.py_buffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    reader = pa.ipc.open_file(content)  # reads nothing but the file's ends: values stay where they are
    batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    found = {}
    for name in columns:
        kind = reader.schema.field(name).type
        places = [(batch.num_rows, batch[name].flatten().buffers()[1].address - content.address) for batch in batches]
        dtype = np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<").str
        found[name] = {"dtype": dtype, "width": kind.list_size, "batches": places}
    return {LAYOUT: found}


def write_columns(
    artifact: Artifact, name: str, columns: dict[str, NDArray[Any]], details: dict[str, Any] | None = None
) -> Shard:
    """Write (B, W) columns as one shard and its receipt.

    Args:
        artifact: the directory.
        name: of the shard.
        columns: at least one row.
        details: facts for the receipt.
    """
    facts = dict(details or {})

    def write(stream: IO[bytes]) -> int:
        batch = pa.record_batch({key: to_column(column) for key, column in columns.items()})
        with pa.ipc.new_file(stream, batch.schema) as writer:
            writer.write_batch(batch)
        facts.update(layout(stream, columns))
        return int(batch.num_rows)

    return write_shard(artifact, name, write, facts)


def bare(shard: Shard) -> Shard:
    """Return what a manifest says of a shard so that its rows can be read, without what else its receipt says."""
    return shard.model_copy(update={"details": {LAYOUT: shard.details[LAYOUT]}})


@dataclasses.dataclass
class _File:
    """An open shard: mapped, or a remote file of which pieces are fetched.

    Attributes:
        content: all of its bytes, None where they are elsewhere.
        remote: where they are.
        n_pieces: fetched so far.
        n_bytes: of them.
    """

    content: NDArray[np.uint8] | None
    remote: pa.NativeFile | None = None
    n_pieces: int = 0
    n_bytes: int = 0

    @property
    def held(self) -> int:
        """Bytes on a disk that cannot be freed while it is open."""
        return 0 if self.content is None else len(self.content)

    def read(self, place: int, n_bytes: int) -> NDArray[np.uint8]:
        """Return some of its bytes: a view where it is mapped."""
        if self.content is not None:
            return self.content[place : place + n_bytes]
        assert self.remote is not None, "it is somewhere"
        return np.frombuffer(self.remote.read_at(n_bytes, place), np.uint8)


class ShardRows:
    """Rows of some columns over all shards. Threads may share it.

    Args:
        artifact: the directory.
        shards: in row order, with the detail :data:`LAYOUT`; at least one.
        columns: fixed-size lists of the same type in all shards.
        reread: whether rows are read more than once: remote shards are then copied to the node as they are opened.

    Attributes:
        n_rows: N.
        types: type and W of each column.
    """

    def __init__(
        self,
        artifact: Artifact,
        shards: Sequence[Shard],
        columns: Sequence[str],
        *,
        reread: bool = False,
    ) -> None:
        self._artifact, self._shards = artifact, shards
        cache = artifact.cache
        self._may_copy = cache is not None and sum(shard.n_bytes for shard in shards) <= cache.max_bytes
        self._reread = reread and self._may_copy
        layouts = [[shard.details[LAYOUT][name] for name in columns] for shard in shards]
        self.types = [(np.dtype(one["dtype"]), int(one["width"])) for one in layouts[0]]
        self._shard_of = [index for index, found in enumerate(layouts) for _ in found[0]["batches"]]
        batches = [batch for found in layouts for batch in zip(*(one["batches"] for one in found), strict=True)]
        self._places = [tuple(place for _, place in batch) for batch in batches]
        lengths = [batch[0][0] for batch in batches]
        self._offsets = np.cumsum([0, *lengths], dtype=np.int64)
        self.n_rows = int(self._offsets[-1])
        self._open: dict[int, _File] = {}
        self._held = 0  # bytes of copies that are open
        self._lock = threading.Lock()

    def release(self) -> None:
        """Close all shards, so that pages that were read do not count as this process's; views stay good."""
        with self._lock:
            self._open.clear()
            self._held = 0

    # ---- reading ---------------------------------------------------------------------------------------------

    def block(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Return rows ``start`` to ``stop`` of each column, (B, W): a read-only view where one mapped batch holds them.

        Args:
            start: at least 0.
            stop: at least ``start``, at most N.
        """
        first = int(np.searchsorted(self._offsets, start, side="right")) - 1
        last = int(np.searchsorted(self._offsets, stop, side="left"))

        def part(batch: int) -> list[NDArray[Any]]:
            offset, end = (int(cut) for cut in self._offsets[batch : batch + 2])
            lo, hi = max(start, offset) - offset, min(stop, end) - offset
            file = self._file(self._shard_of[batch])
            return [self._rows(file, batch, column, lo, hi) for column in range(len(self.types))]

        parts = self._each(part, range(first, last))
        if not parts:
            return [np.empty((0, width), dtype) for dtype, width in self.types]
        return [one[0] if len(one) == 1 else np.concatenate(one) for one in zip(*parts, strict=True)]

    def gather(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return the rows of each column, (B, W), in any order, with repeats: fresh C-contiguous copies.

        Args:
            rows: (B,) row numbers from 0 to N - 1.
        """
        if len(self._places) == 1 and self._artifact.is_local:  # one map holds all rows
            return [np.take(column, rows, axis=0) for column in self.block(0, self.n_rows)]
        found = [np.empty((len(rows), width), dtype) for dtype, width in self.types]
        order = np.argsort(rows, kind="stable")  # by row, not only by batch: neighbours share pages
        ordered = rows[order]
        cuts = np.searchsorted(ordered, self._offsets)

        def take(batch: int) -> None:
            here = slice(cuts[batch], cuts[batch + 1])
            local_rows = ordered[here] - self._offsets[batch]
            for column, out in enumerate(found):
                self._take(batch, column, local_rows, out[here])

        self._each(take, np.flatnonzero(np.diff(cuts)).tolist())
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        return [np.take(column, position, axis=0) for column in found]

    def _each(self, function: Callable[[int], Any], batches: Sequence[int]) -> list[Any]:
        """Call ``function`` on each batch, some at a time where they are fetched."""
        if self._artifact.is_local or len(batches) < 2:
            return [function(batch) for batch in batches]
        with ThreadPoolExecutor(FETCH_THREADS) as pool:
            return list(pool.map(function, batches))

    def _take(self, batch: int, column: int, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill ``out`` (B, W) with rows of a batch, which are in order, with repeats."""
        file, runs = self._file(self._shard_of[batch]), [rows]
        if file.content is None:
            dtype, width = self.types[column]
            row_bytes = dtype.itemsize * width
            runs = np.split(rows, np.flatnonzero(np.diff(rows) * row_bytes > GAP_BYTES) + 1)
            file = self._worthwhile(file, self._shard_of[batch], runs, row_bytes)
        done = 0
        for run in runs:
            values = self._rows(file, batch, column, int(run[0]), int(run[-1]) + 1)
            # the default mode would write through a buffer; the rows exist
            np.take(values, run - run[0], axis=0, out=out[done : done + len(run)], mode="clip")
            done += len(run)

    def _rows(self, file: _File, batch: int, column: int, first: int, last: int) -> NDArray[Any]:
        """Return rows [first, last) of a batch, (last - first, W)."""
        dtype, width = self.types[column]
        row_bytes = dtype.itemsize * width
        content = file.read(self._places[batch][column] + first * row_bytes, (last - first) * row_bytes)
        values: NDArray[Any] = content.view(dtype).reshape(last - first, width)
        return values

    # ---- shards ----------------------------------------------------------------------------------------------

    def _file(self, index: int) -> _File:
        """Return a shard, opened if need be."""
        with self._lock:
            file = self._open.get(index)
        return file or self._kept(index, self._opened(index))

    def _kept(self, index: int, file: _File) -> _File:
        """Leave a shard open, and close those opened longest ago beyond the limits."""
        cache = None if self._artifact.is_local else self._artifact.cache
        most = OPEN_SHARE * cache.max_bytes if cache is not None else math.inf
        with self._lock:
            before = self._open.pop(index, None)
            self._open[index] = file
            self._held += file.held - (before.held if before else 0)
            while len(self._open) > 1 and (len(self._open) > OPEN_SHARDS or self._held > most):
                self._held -= self._open.pop(next(iter(self._open))).held
        return file

    def _opened(self, index: int) -> _File:
        artifact, shard = self._artifact, self._shards[index]
        path = (artifact.mappable if self._reread else artifact.mapped)(shard.name, shard.known)
        file = self._mapped(path, shard)
        return file or _File(None, artifact.filesystem.open_input_file(artifact.file_path(shard.name)))

    def _worthwhile(self, file: _File, index: int, runs: Sequence[NDArray[np.int64]], row_bytes: int) -> _File:
        """Return the remote file to fetch the runs from; its copy where pieces have come to cost as much."""
        shard = self._shards[index]
        file.n_pieces += len(runs)
        file.n_bytes += row_bytes * sum(int(run[-1] - run[0]) + 1 for run in runs)
        is_cheap = file.n_bytes <= PIECE_SHARE * shard.n_bytes and file.n_pieces * PIECE_BYTES <= shard.n_bytes
        if is_cheap or not self._may_copy:
            return file
        copy = self._mapped(self._artifact.mappable(shard.name, shard.known), shard)
        return self._kept(index, copy) if copy else file

    def _mapped(self, path: str | None, shard: Shard) -> _File | None:
        """Map a shard's file or a copy of it; None where there is none, or another process has just dropped it.

        Raises:
            DamagedArtifactError: it is longer or shorter than its receipt says.
        """
        if path is None:
            return None
        try:
            content = _map(path)
        except FileNotFoundError:
            if self._artifact.is_local:
                raise
            return None
        if len(content) != shard.n_bytes:
            raise DamagedArtifactError(
                f"{self._artifact.uri}/{shard.name}: holds {len(content)} bytes, its receipt says {shard.n_bytes}; "
                f"delete {self._artifact.uri} and run the stage that writes it again"
            )
        return _File(content)


def _map(path: str) -> NDArray[np.uint8]:
    """Return a file's bytes, mapped; pyarrow's own reading of a map asks the system to read ahead all of it."""
    with pa.memory_map(path) as file:
        size = file.size()
        start = file.read_buffer(1)
    whole = pa.foreign_buffer(start.address, size, base=start)  # the map lasts as long as any view of it
    content: NDArray[np.uint8] = pa.Array.from_buffers(pa.uint8(), size, [None, whole]).to_numpy()
    return content
