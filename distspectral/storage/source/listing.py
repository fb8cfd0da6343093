"""From a file, folder, glob or URI to the list of files it names, in an order that never changes by itself."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from distspectral.errors import ConfigError, CorruptShardError, DistSpectralError, NoShardsError, first_line
from distspectral.storage.filesystems import SECRET_HINTS, require_answer, resolve, split_options
from distspectral.storage.source import tables

LISTING_HINT = "data.path is a file, a folder, a glob or a URI such as s3://bucket/folder, or a list of these"

CONVERSIONS = {
    ".json": "pandas.read_json(FILE).to_parquet('rows.parquet')",
    ".safetensors": "numpy.save('rows.npy', safetensors.numpy.load_file(FILE)['NAME'])",
    ".gz": "gunzip FILE",
    ".txt": "numpy.save('rows.npy', numpy.loadtxt(FILE, 'float32'))",
    ".mat": "numpy.save('rows.npy', numpy.ascontiguousarray(scipy.io.loadmat(FILE)['NAME']))",
}
"""Lines that make shards of files that are none, by extension."""


VERSIONS = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "last_modified", "modified", "updated", "created")
"""What file systems of fsspec tell of a file's content, then of its last change, by their own words."""


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """One file of the source, known by name only: nothing of it has been read.

    Attributes:
        filesystem: where it lives; picklable.
        path: as the filesystem names it.
        uri: as messages name it.
        name: relative to the folder or glob it was found by, so that a moved dataset keeps its fingerprint.
        folder: that folder, or the file itself where it was named by itself.
        size: bytes.
        mtime_ns: last change, where the filesystem knows it.
        version: what it says of the content in place of a time, such as an etag.
    """

    filesystem: fs.FileSystem
    path: str
    uri: str
    name: str
    folder: str
    size: int
    mtime_ns: int | None
    version: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the file can be memory-mapped."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def extension(self) -> str:
        """What follows the last dot of the file's name, lower case, with the dot; empty without one."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def partitions(self) -> dict[str, str]:
        """What the folders between say of all its rows, as Hive writes it: ``lang=en/`` is a column of one value."""
        parts = (part.partition("=") for part in self.name.split("/")[:-1])
        return {unquote(key): unquote(value) for key, equals, value in parts if key and equals}

    @property
    def real_path(self) -> str:
        """The path, without links where it is local."""
        return _real(self.filesystem, self.path)

    @property
    def real_folder(self) -> str:
        """The folder, likewise."""
        return _real(self.filesystem, self.folder)

    def open(self) -> pa.NativeFile:
        """Open for random access; memory-mapped where the file is local.

        Raises:
            CorruptShardError: the file has another size than when it was listed.
        """
        stream = pa.memory_map(self.path, "r") if self.is_local else self.filesystem.open_input_file(self.path)
        if (n_bytes := stream.size()) != self.size:
            raise CorruptShardError(
                f"{self.uri}: is {n_bytes:,} bytes long, but {self.size:,} when it was listed; leave shards alone "
                "during a run"
            )
        return stream


def find_files(
    paths: Iterable[str],
    extensions: frozenset[str] | None,
    others: frozenset[str] | None = None,
    *,
    follow_links: bool = False,
) -> list[ShardFile]:
    """List the files that ``paths`` name: in the order given, and sorted by name within a folder or glob.

    Folders are searched recursively. Names that begin with a dot, or with an underscore and hold no ``=``, are ignored
    (``.crc``, ``_SUCCESS``; not the partition ``_day=1``). Files of one name in different folders are different shards;
    one file under two names is an error. A file named by itself is taken even out of a table.

    Args:
        paths: files, folders, globs (``*``, ``?``, ``[..]``, ``**``) or URIs.
        extensions: what to look for, lower case with the dot; None takes every visible file.
        others: what to take where a path names none of these.
        follow_links: whether symbolic links may lead out of the folder they are found in.

    Raises:
        NoShardsError: a path names nothing that could be read.
        ConfigError: a file is named twice, links form a loop or lead out of their folder.
        TableError: files are those of a table, and its log decides which of their rows are live.
    """
    found: dict[str, ShardFile] = {}
    for path in paths:
        try:
            require_answer(path)
            listed, refusals = _list(path)
        except DistSpectralError:
            raise
        except Exception as error:
            if not isinstance(error, (OSError, ValueError, pa.ArrowException)) and "://" not in path:
                raise  # those of fsspec's filesystems are of any kind
            secret = SECRET_HINTS.get(path.partition("://")[0])
            hint = LISTING_HINT if secret is None else f"check the place, and the credentials given {secret}"
            message = f"{path}: cannot be listed ({first_line(error)}); {hint}"
            raise NoShardsError(message, parameters=["data.path"]) from error
        files = [file for file in listed if extensions is None or file.extension in extensions]
        files = files or [file for file in listed if others is not None and file.extension in others]
        for refusal in refusals:
            if not files or any(f"{file.path}/".startswith(f"{refusal.place}/") for file in files):
                raise refusal.error()
        if not files:
            raise _none(path, listed, None if extensions is None else extensions | (others or frozenset()))
        for file in files:
            if file.is_local:
                _refuse_bad_link(file, follow_links)
            itself = file.real_path if file.is_local else file.uri
            if (other := found.get(itself)) is not None:
                alias = "" if other.uri == file.uri else f", also as {other.uri}"
                message = f"data.path: names {file.uri} twice{alias}; name each shard once"
                raise ConfigError(message, parameters=["data.path"])
            found[itself] = file
    return list(found.values())


def would_find(path: str, places: Sequence[str]) -> bool:
    """Whether any of some files would be found by ``path``, a folder or glob, if it were there.

    Args:
        path: see :func:`find_files`.
        places: local paths or URIs of the files, on one filesystem.
    """
    base, pattern = _split(path)
    filesystem, folder = real_place(base)
    for place in places:
        other, file = real_place(place)
        parts = file.removeprefix(f"{folder}/").split("/")
        is_below = file.startswith(f"{folder}/") and not any(map(_is_hidden, parts))
        if is_below and filesystem.equals(other) and (not pattern or _matches(parts, pattern)):
            return True
    return False


def real_place(uri: str) -> tuple[fs.FileSystem, str]:
    """Return (filesystem, path) of a local path or a URI: without a slash at its end and, where local, links."""
    filesystem, path = resolve(uri)
    return filesystem, _real(filesystem, path).rstrip("/")


def _real(filesystem: fs.FileSystem, path: str) -> str:
    return os.path.realpath(path) if isinstance(filesystem, fs.LocalFileSystem) else path


def _none(path: str, listed: list[ShardFile], extensions: frozenset[str] | None) -> NoShardsError:
    """Return the error of a path that names no shard: it does not exist, or what lies there is something else."""
    base, _ = _split(path)
    if not _exists(base):
        what = "" if base == path else f"{base} "
        return NoShardsError(f"{path}: {what}does not exist; {LISTING_HINT}", parameters=["data.path"])
    looked_for = "any file" if extensions is None else f"{', '.join(sorted(extensions))} (or set data.format)"
    others = Counter(file.extension or "no extension" for file in listed)
    ways = [CONVERSIONS[extension] for extension in others if extension in CONVERSIONS]
    way = f"; convert it: {ways[0]}" if ways else ""
    there = ", ".join(f"{count:,} of {extension}" for extension, count in others.most_common(3)) or "no file"
    return NoShardsError(
        f"{path}: names no shard; looked for {looked_for}, found {there}{way}; {LISTING_HINT}",
        parameters=["data.path", *([] if extensions is None else ["data.format"])],
    )


def _split(path: str) -> tuple[str, list[str]]:
    """Return the folder in which a glob looks, and the parts of its pattern: none of a path that is no glob.

    A name such as ``a[1].npy`` means itself where it exists.
    """
    location, options = split_options(path)
    parts = location.split("/")
    wild = next((index for index, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
    if wild is None or _exists(path):
        return path, []
    root = "/".join(parts[:wild]) or ("/" if location.startswith("/") else ".")
    is_uri = "://" in path
    return root + options, [unquote(part) if is_uri else part for part in parts[wild:]]


def _list(path: str) -> tuple[list[ShardFile], list[tables.Refusal]]:
    """Return the files, and which of them are not to be read."""
    base, pattern = _split(path)
    files, refusals = _walk(base)
    return [file for file in files if not pattern or _matches(file.name.split("/"), pattern)], refusals


def _exists(path: str) -> bool:
    filesystem, place = resolve(path)
    return bool(filesystem.get_file_info(place).type != fs.FileType.NotFound)


def _walk(path: str) -> tuple[list[ShardFile], list[tables.Refusal]]:
    """Return the file at ``path``, or the visible files below it sorted by name, and which are not to be read."""
    filesystem, root = resolve(path)
    root = root.rstrip("/") or "/"
    scheme = f"{path.partition('://')[0]}://" if "://" in path else ""
    info = filesystem.get_file_info(root)
    if info.type == fs.FileType.File:
        return [_shard_file(filesystem, info, scheme, info.base_name, info.path)], []
    if info.type != fs.FileType.Directory:
        return [], []
    if isinstance(filesystem, fs.LocalFileSystem):
        entries = filesystem.get_file_info(list(_local_entries(root)))
    else:
        entries = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    files = []
    for entry in entries:
        name = entry.path[len(root) :].lstrip("/")
        # a dangling link is not found, and a shard that is lost
        if entry.type in (fs.FileType.File, fs.FileType.NotFound) and not any(
            _is_hidden(part) for part in name.split("/")
        ):
            files.append(_shard_file(filesystem, entry, scheme, name, root))
    places = [entry.path for entry in entries]
    refusals = [
        *(one._replace(place=root) for one in tables.around(filesystem, _real(filesystem, root), scheme)),
        *tables.among(places, scheme),
        *tables.strays(filesystem, places, scheme),
    ]
    return sorted(files, key=lambda file: file.name), refusals


def _shard_file(filesystem: fs.FileSystem, info: fs.FileInfo, scheme: str, name: str, folder: str) -> ShardFile:
    version = _version(filesystem, info.path) if info.mtime_ns is None else None
    return ShardFile(filesystem, info.path, scheme + info.path, name, folder, info.size, info.mtime_ns, version)


def _version(filesystem: fs.FileSystem, path: str) -> str | None:
    """Return what a file system of fsspec says of a file's content or change; None where it says nothing of the kind.

    Arrow asks these only for ``mtime``, which hf:// and others do not know.
    """
    if not isinstance(filesystem, fs.PyFileSystem) or not isinstance(filesystem.handler, fs.FSSpecHandler):
        return None
    told = filesystem.handler.fs.info(path)
    return next((f"{key} {told[key]}" for key in VERSIONS if told.get(key) is not None), None)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _local_entries(root: str) -> Iterator[str]:
    """Yield the files and folders below a local folder; hidden folders are not entered, each real one is walked once.

    Raises:
        ConfigError: a link leads to a folder that is walked already.
    """
    walked = {os.path.realpath(root): root}
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
        yield from (f"{folder}/{name}" for name in (*subfolders, *names))
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        for name in subfolders:
            path = f"{folder}/{name}"
            other = walked.setdefault(os.path.realpath(path), path)
            if other != path:
                raise ConfigError(
                    f"data.path: {path} is the same folder as {other}, by a symbolic link (a loop, or the same shards "
                    "twice); remove the link",
                    parameters=["data.path"],
                )


def _raise(error: OSError) -> None:
    raise error


def _refuse_bad_link(file: ShardFile, follow_links: bool) -> None:
    """Refuse a link to nothing, and one out of the folder it was found in unless these are followed."""
    real, inside = file.real_path, file.real_folder
    if not os.path.exists(real):
        raise NoShardsError(
            f"{file.uri}: is a symbolic link to {real}, which does not exist; restore it or remove both"
        )
    if not follow_links and os.path.commonpath([real, inside]) != inside:
        raise ConfigError(
            f"data.path: {file.path} leads by a symbolic link out of its folder, to {real}; name that place in "
            "data.path, or set data.follow_links to true if you trust the link",
            parameters=["data.path", "data.follow_links"],
        )


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
