"""Folders that are more than their files: tables whose log says which rows are live, refused with a way out.

Deleted and replaced rows stay in such a folder's files until these are swept, so reading the files counts them again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from distspectral.errors import TableError

WAYS_OUT = {
    "Delta": "write its live rows, pyarrow.dataset.write_dataset(deltalake.DeltaTable({place!r}).to_pyarrow_dataset(), "
    "FOLDER, format='parquet'), or name exactly the files of deltalake.DeltaTable({place!r}).file_uris() in data.path",
    "Iceberg": "write its live rows, pyarrow.dataset.write_dataset(TABLE.scan().to_arrow_batch_reader(), FOLDER, "
    "format='parquet'), with TABLE from pyiceberg.catalog or pyiceberg.table.StaticTable.from_metadata(METADATA_JSON)",
    "Hudi": "write its live rows, spark.read.format('hudi').load({place!r}).write.parquet(FOLDER)",
    "Lance": "write its rows, pyarrow.dataset.write_dataset(lance.dataset({place!r}).scanner().to_reader(), FOLDER, "
    "format='parquet')",
    "Zarr": "write its rows, numpy.save('rows.npy', zarr.open({place!r})[:])",
}
"""By format; then data.path is the new folder."""

MARKS = {"_delta_log": "Delta", ".hoodie": "Hudi", "zarr.json": "Zarr", ".zarray": "Zarr", ".zgroup": "Zarr"}
"""What lies in the folder of a table, by name."""

STATE = "state.json"
"""In a folder that ``datasets.Dataset.save_to_disk`` wrote: which files are the dataset's."""
MOST_STATE_BYTES = 64 << 20


class Refusal(NamedTuple):
    """Files that are not to be read as they are.

    Attributes:
        place: of the file, or of the folder they are in, as the filesystem names it.
        message: what they are and what to do.
    """

    place: str
    message: str

    def error(self) -> TableError:
        """Return the error to raise where one of them was asked for."""
        return TableError(self.message, parameters=["data.path"] if "data.path" in self.message else [])


def among(places: Iterable[str], scheme: str) -> list[Refusal]:
    """Return the tables that these files and folders are marks of.

    Args:
        places: as their filesystem names them.
        scheme: put before them in messages.
    """
    found: dict[str, Refusal] = {}
    for place in places:
        path = PurePosixPath(place)
        kind, folder = MARKS.get(path.name), path.parent
        if kind is None and path.parent.name == "metadata" and ".metadata.json" in path.name:
            kind, folder = "Iceberg", path.parent.parent
        elif kind is None and path.suffix == ".lance" and path.parent.name == "data":
            kind, folder = "Lance", path.parent.parent
        if kind is not None:
            uri = f"{scheme}{folder}"
            message = f"{uri}: is a {kind} table, whose log decides which rows of its files are live; "
            found.setdefault(str(folder), Refusal(str(folder), message + WAYS_OUT[kind].format(place=uri)))
    return list(found.values())


def around(filesystem: fs.FileSystem, root: str, scheme: str) -> list[Refusal]:
    """Return the tables that a folder, all of it, is a part of: folders above it are theirs.

    Args:
        filesystem: of the folder.
        root: its place there, without links.
        scheme: put before places in messages.
    """
    above = [str(folder) for folder in PurePosixPath(root).parents if str(folder) not in (".", "/")]
    marks = [f"{folder}/{mark}" for folder in above for mark in MARKS]
    with contextlib.suppress(OSError, pa.ArrowException):  # who may read a folder need not be let look above it
        infos = filesystem.get_file_info(marks)
        for folder in above:
            infos += filesystem.get_file_info(fs.FileSelector(f"{folder}/metadata", allow_not_found=True))
        return among((info.path for info in infos if info.type != fs.FileType.NotFound), scheme)
    return []


def strays(filesystem: fs.FileSystem, places: Sequence[str], scheme: str) -> Iterator[Refusal]:
    """Yield Arrow files beside a saved Hugging Face dataset that are not its own: caches repeat its rows.

    Where the dataset is a selection of its files' rows, that is its folder.

    Args:
        filesystem: of the files.
        places: of all files, as it names them.
        scheme: put before places in messages.
    """
    for place in places:
        if PurePosixPath(place).name != STATE:
            continue
        folder = str(PurePosixPath(place).parent)
        with filesystem.open_input_stream(place) as stream:
            try:
                state = json.loads(stream.read(MOST_STATE_BYTES))
                own = {one["filename"] for one in state["_data_files"]}
            except (ValueError, KeyError, TypeError):
                continue  # some other state
        if state.get("_indices_data_files"):
            yield Refusal(
                folder,
                f"{scheme}{folder}: is a datasets.Dataset that selects rows of its files; save it again after "
                "flatten_indices()",
            )
        for other in places:
            path = PurePosixPath(other)
            if str(path.parent) == folder and path.suffix == ".arrow" and path.name not in own:
                yield Refusal(
                    other,
                    f"{scheme}{other}: lies in the folder of a datasets.Dataset but is not among its files "
                    f"({STATE}), such as a cache of Dataset.map; remove it, or name {folder}/data-*.arrow in data.path",
                )
