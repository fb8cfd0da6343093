"""Files of named arrays, each read from its first row on: .npz, a folder of .npy, HDF5 and AnnData, torch's.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs

from distspectral.errors import MissingDependencyError, UnsupportedTypeError, first_line

MATRIX = ("data", "indices", "indptr")
"""Arrays of a matrix in compressed rows."""


class Rows(Protocol):
    """An array that is read forwards.

    Attributes:
        shape: (N, ...).
        dtype: of the values; of strings, U or O.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows; ``start`` is never before the ``stop`` of the call before."""
        ...


Arrays = Mapping[str, Rows]


class NpyRows:
    """A .npy array in a stream.

    Args:
        stream: at its beginning.
        name: for messages.

    Raises:
        ValueError: it is none.
        UnsupportedTypeError: it holds Python objects, or lies column by column.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._row, self._name = stream, 0, name
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, fortran_order, self.dtype = read(stream)
        except Exception as error:  # a header is a Python literal, whose parser raises anything
            raise ValueError(f"the header of {name} is damaged: {first_line(error)}") from error
        if self.dtype.hasobject:
            raise UnsupportedTypeError(f"{name}: holds Python objects, which only code could read; save text as str")
        if fortran_order and len(self.shape) > 1 and min(self.shape) > 1:
            raise UnsupportedTypeError(
                f"{name}: is stored column by column (Fortran order) and cannot be streamed by row; "
                "save numpy.ascontiguousarray(array)"
            )
        if any(type(size) is not int or size < 0 for size in self.shape):
            raise ValueError(f"the header of {name} is damaged: shape {self.shape}")

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows; see :class:`Rows`."""
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        assert start >= self._row, "rows are read forwards"
        with _as_value_errors(self._name):
            if start > self._row:
                self._stream.seek((start - self._row) * row_bytes, 1)
            content = self._stream.read((stop - start) * row_bytes)
        if len(content) < (stop - start) * row_bytes:
            raise ValueError(f"{self._name} ends too early")
        self._row = stop
        values = np.frombuffer(content, self.dtype).astype(self.dtype.newbyteorder("="), copy=False)
        return values.reshape(stop - start, *self.shape[1:])


class ArrayRows:
    """What can be sliced as an array can: a dataset of HDF5, a tensor.

    Args:
        array: of N rows.
        taken: a slice of it to NumPy.
        dtype: of that.
    """

    def __init__(self, array: Any, taken: Callable[[Any], NDArray[Any]], dtype: np.dtype[Any]) -> None:
        self._array, self._taken, self.dtype, self.shape = array, taken, dtype, tuple(array.shape)

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows; see :class:`Rows`."""
        with _as_value_errors("an array"):
            return self._taken(self._array[start:stop])


class SparseRows:
    """A matrix in compressed rows, (N, D), as dense rows.

    Args:
        arrays: those of :data:`MATRIX`.
        shape: (N, D).
    """

    def __init__(self, arrays: Arrays, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, arrays["data"].dtype
        self._arrays = arrays
        self._starts = arrays["indptr"].take(0, shape[0] + 1)

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows; see :class:`Rows`."""
        counts, columns, values = self.entries(start, stop)
        dense = np.zeros((stop - start, self.shape[1]), self.dtype)
        dense[np.repeat(np.arange(stop - start), counts), columns] = values
        return dense

    @property
    def longest(self) -> int:
        """Most entries of a row."""
        return int(np.diff(self._starts).max(initial=0))

    def entries(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return how many entries each of some rows has, and of all of them the columns and the values."""
        first, last = int(self._starts[start]), int(self._starts[stop])
        values = self._arrays["data"].take(first, last)
        return np.diff(self._starts[start : stop + 1]), self._arrays["indices"].take(first, last), values


@contextlib.contextmanager
def open_npz(stream: IO[bytes], name: str) -> Iterator[dict[str, Rows]]:
    """Open the arrays of a .npz file, by name; those compressed are decompressed as they are read.

    Raises:
        ValueError: it is none.
        UnsupportedTypeError: see :class:`NpyRows`.
    """
    with contextlib.ExitStack() as opened:
        with _as_value_errors(name):
            archive = opened.enter_context(zipfile.ZipFile(stream))
        arrays: dict[str, Rows] = {}
        for member in archive.namelist():
            if member.endswith(".npy"):
                with _as_value_errors(name):
                    content = opened.enter_context(archive.open(member))
                arrays[member.removesuffix(".npy")] = NpyRows(content, f"{name}, array {member}")
        yield arrays


@contextlib.contextmanager
def open_folder(filesystem: fs.FileSystem, folder: str) -> Iterator[dict[str, Rows]]:
    """Open the .npy files of a folder, by name without ending."""
    with contextlib.ExitStack() as opened:
        arrays: dict[str, Rows] = {}
        for info in filesystem.get_file_info(fs.FileSelector(folder)):
            if info.type == fs.FileType.File and info.base_name.endswith(".npy"):
                stream = opened.enter_context(filesystem.open_input_file(info.path))
                arrays[info.base_name.removesuffix(".npy")] = NpyRows(stream, info.path)
        yield arrays


@contextlib.contextmanager
def open_hdf5(stream: IO[bytes], name: str) -> Iterator[dict[str, Rows]]:
    """Open the arrays of an HDF5 file, by path, and matrices in compressed rows by that of their group.

    Of AnnData, columns of ``obs`` go by their own names, and its index as ``obs_names``.

    Raises:
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(f"{name}: h5py is not installed: pip install '.[hdf5]'") from error
    arrays: dict[str, Rows] = {}

    def visit(path: str, node: Any) -> None:
        above, own = str(PurePosixPath(path).parent), PurePosixPath(path).name
        place = own if above == "obs" else path
        if isinstance(node, h5py.Dataset):
            text = h5py.check_string_dtype(node.dtype) is not None
            array = node.asstr() if text else node
            if node.ndim:
                arrays[place] = ArrayRows(_Shaped(array, node.shape), np.asarray, np.dtype("O") if text else node.dtype)
        elif set(MATRIX) <= node.keys() and node.attrs.get("encoding-type", "csr_matrix") == "csr_matrix":
            parts = {part: ArrayRows(node[part], np.asarray, node[part].dtype) for part in MATRIX}
            shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
            if shape is not None:
                arrays[place] = SparseRows(parts, tuple(map(int, shape)))
        elif {"categories", "codes"} <= node.keys():
            names = node["categories"].asstr()[:] if h5py.check_string_dtype(node["categories"].dtype) else None
            known = node["categories"][:] if names is None else names
            arrays[place] = ArrayRows(node["codes"], _Categories(known), known.dtype)

    with contextlib.ExitStack() as opened:
        with _as_value_errors(name):
            file = opened.enter_context(h5py.File(stream, "r"))
            file.visititems(visit)
            index = file["obs"].attrs.get("_index") if "obs" in file and isinstance(file["obs"], h5py.Group) else None
        if index in arrays:
            arrays["obs_names"] = arrays[index]
        yield arrays


class _Shaped:
    """A view whose shape h5py does not tell: text."""

    def __init__(self, array: Any, shape: tuple[int, ...]) -> None:
        self._array, self.shape = array, shape

    def __getitem__(self, rows: slice) -> Any:
        return self._array[rows]


class _Categories:
    """Codes to what they stand for; -1 is None."""

    def __init__(self, known: NDArray[Any]) -> None:
        self._known: NDArray[Any] = np.array([*known.tolist(), None], object)

    def __call__(self, codes: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = self._known[np.asarray(codes, np.int64)]
        return found


@contextlib.contextmanager
def open_torch(stream: IO[bytes], name: str, path: str | None) -> Iterator[dict[str, Rows]]:
    """Open what ``torch.save`` wrote of a tensor, called ``vector``, or of a dict of tensors; no code in it runs.

    Args:
        stream: of the file.
        name: for messages.
        path: by which it can be memory-mapped; None reads all of it.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    import torch

    try:
        content = torch.load(
            io.BytesIO(stream.read()) if path is None else path, "cpu", weights_only=True, mmap=path is not None
        )
    except Exception as error:  # of its own kinds, some bare
        raise ValueError(f"torch.load refuses it: {first_line(error)}") from error
    tensors = content if isinstance(content, dict) else {"vector": content}
    arrays: dict[str, Rows] = {}
    for key, tensor in tensors.items():
        if isinstance(tensor, list) and tensor and all(isinstance(one, str) for one in tensor):
            arrays[str(key)] = ArrayRows(np.array(tensor), np.asarray, np.dtype("U"))
        elif isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.layout == torch.strided:
            tensor = tensor.detach()
            tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            arrays[str(key)] = ArrayRows(tensor, lambda part: part.numpy(), tensor[:0].numpy().dtype)
    if not arrays:
        raise ValueError(f"it holds a {type(content).__name__} without tensors; save a tensor, or a dict of them")
    yield arrays


@contextlib.contextmanager
def _as_value_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(KeyError, IndexError, TypeError, AttributeError),
    ) as error:
        raise ValueError(f"{name} is damaged: {first_line(error)}") from error


def arrow_type(rows: Rows) -> pa.DataType | None:
    """Return the type of a column of these rows: a number, text or a list of numbers; None: it can be no column."""
    try:
        kind = pa.string() if rows.dtype.kind in "UO" else pa.from_numpy_dtype(rows.dtype.newbyteorder("="))
    except (pa.ArrowNotImplementedError, TypeError):
        return None
    if len(rows.shape) == 1:
        return kind
    return pa.list_(kind, rows.shape[1]) if len(rows.shape) == 2 and pa.types.is_primitive(kind) else None
