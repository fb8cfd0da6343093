"""The user's shards as one dataset: refused early where headers tell, then streamed as float32 blocks.

Shape letters: N rows of all shards, B rows of a block, D features.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, PositiveInt

from distspectral.errors import EmptyShardError, ShardWidthError, UnknownColumnError, UnsupportedTypeError
from distspectral.frozen import FrozenModel
from distspectral.storage.rows.block import Block
from distspectral.storage.rows.columns import ScalarType
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.carried import Carry, carried_schema
from distspectral.storage.source.columns import VECTOR, Columns
from distspectral.storage.source.formats import FORMATS, OF_SHARDS, FormatName, Header, reading
from distspectral.storage.source.limits import refuse_absurd_width, refuse_bomb
from distspectral.storage.source.listing import ShardFile, find_files
from distspectral.storage.source.pieces import PIECE_BYTES, PIECE_ROWS, piece_rows, pieces
from distspectral.storage.source.shards import BadRowPolicy, ShardReader, SourceShard

HEADER_THREADS = 16
"""Headers read at once; opening thousands of remote shards is all waiting."""


class SourceConfig(FrozenModel):
    """Where the vectors are and how to read them (section ``data``)."""

    path: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="File, folder, glob or URI of the shards, or a list of these."
    )
    format: Literal["auto", FormatName] = Field(
        "auto",
        description="Format of every shard; `auto` goes by the file's extension and ignores other files: all but "
        "Parquet, Arrow, .npy and .fbin where there are any of these.",
    )
    column: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        VECTOR,
        description="Vector column, or array of a file of arrays; or the columns of numbers that make a vector, a list "
        "such as [x0, x1] or a pattern such as x*.",
    )
    id_column: str | None = Field(
        None, description="Column of unique ids, integers or strings; without one a row's number is its id."
    )
    label_column: str | None = Field(None, description="Column of labels, integers or strings, for evaluation only.")
    on_bad_rows: BadRowPolicy = Field(
        "error",
        description="A row with NaN, infinity, null, a value too large to be told from the others in float32, another "
        "width or an unreadable id: `error` stops with its place, "
        "`quarantine` leaves it out of every artifact and keeps its id, file, row and reason in `.quarantine`.",
    )
    carry: Carry = Field(
        (),
        description="Columns that the output takes over as they are, such as [text, url]; `all`: every one but the "
        "vectors and the ids. Nothing is learned from them.",
    )
    follow_links: bool = Field(
        False, description="Take symbolic links that lead out of the folder they are found in; else they are refused."
    )
    scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="Factor for every value, e.g. 1/255 for pixels.")
    image_shape: tuple[PositiveInt, PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None,
        description="Shape of the picture that a row is, such as [28, 28] or [32, 32, 3]: height, width and, for "
        "colours, 3 channels, before these or after, as the values lie row by row. The report then shows rows as "
        "pictures. null: it does if they are grey squares by their numbers.",
    )

    @property
    def columns(self) -> Columns:
        """Names of the columns to read."""
        return Columns.of(self.column, self.id_column, self.label_column)


@dataclasses.dataclass(frozen=True)
class Source:
    """All shards of a dataset, opened: headers read, rows not. Picklable.

    Attributes:
        config: what was asked for.
        shards: in row order; a large file is several.
        reader: reads any one of them; hand this and a shard to a remote task.
        carried: columns that the output takes over.
        is_framed: whether it is decided in which frame.
        features: columns that make a vector, in order; empty where one column holds vectors.
        passed_over: columns that a pattern of features fits, but that hold no numbers, with their types.
    """

    config: SourceConfig
    shards: list[SourceShard]
    reader: ShardReader
    carried: pa.Schema
    is_framed: bool = False
    features: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @classmethod
    def open(cls, config: SourceConfig, *, most_rows: int = PIECE_ROWS, most_bytes: int = PIECE_BYTES) -> Source:
        """List the shards and read their headers or footers; files of no rows, which Spark writes, are passed over.

        Args:
            config: where they are and how to read them.
            most_rows: of one shard; a larger file is cut, where its format allows.
            most_bytes: of one shard's vectors as float32, likewise.

        Raises:
            NoShardsError: a path names no shard.
            CorruptShardError: a header cannot be parsed or contradicts the file.
            EmptyShardError: a file is empty, or no shard has rows.
            ShardWidthError: two shards differ in width.
            UnknownColumnError: a shard lacks a column.
            UnsupportedTypeError: a column's type cannot be read, carried or differs between shards.
        """
        extensions = {extension: name for name, one in FORMATS.items() for extension in one.extensions}
        paths = [config.path] if isinstance(config.path, str) else config.path
        looked_for = others = None
        if config.format == "auto":
            looked_for = frozenset(extension for name in OF_SHARDS for extension in FORMATS[name].extensions)
            others = frozenset(extensions) - looked_for
        files = find_files(paths, looked_for, others, follow_links=config.follow_links)
        formats: list[FormatName] = [
            extensions[file.extension] if config.format == "auto" else config.format for file in files
        ]
        with ThreadPoolExecutor(min(HEADER_THREADS, max(1, len(files)))) as pool:
            headers = list(pool.map(functools.partial(_read_header, config), files, formats))
        filled = [trio for trio in zip(files, formats, headers, strict=True) if trio[2].n_rows]
        if not filled:
            raise EmptyShardError(f"{files[0].uri}: holds no rows, nor does any other shard; bring rows")
        first_file, first = _typical(filled)
        refuse_absurd_width(first_file, first.dim)
        shards, first_row = [], 0
        for file, name, header in filled:
            _refuse_mixture(first_file, first, file, header)
            _refuse_other_features(config.columns, first_file, first, file, header)
            refuse_bomb(file, header.n_rows, first.dim)
            for piece in pieces(header.n_rows, header.parts, piece_rows(first.dim, most_rows, most_bytes)):
                place = first_row + piece.first_row
                shards.append(SourceShard(file, name, piece.n_rows, place, piece.first_row, piece.parts))
            first_row += header.n_rows
        frame = Frame(config.scale)
        reader = ShardReader(config.columns, frame, first.dim, first.id_type, first.label_type, config.on_bad_rows)
        schemas = [(file.uri, header.schema) for file, _, header in filled]
        carried, schema = carried_schema(config.carry, config.columns, schemas), first.schema
        if schema is None:
            return cls(config, shards, reader, carried)
        left = [name for name in config.columns.passed_over(schema) if name not in carried.names]
        return cls(
            config,
            shards,
            reader,
            carried,
            features=tuple(config.columns.features_of(schema)),
            passed_over=tuple(f"{name} ({schema.field(name).type})" for name in left),
        )

    @property
    def dim(self) -> int:
        """D."""
        return self.reader.dim

    @property
    def n_rows(self) -> int:
        """N."""
        return sum(shard.n_rows for shard in self.shards)

    @property
    def n_values(self) -> int:
        """Numbers in all rows: N x D."""
        return self.n_rows * self.dim

    @property
    def files(self) -> list[ShardFile]:
        """All files, in row order."""
        return [shard.file for shard in self.shards if shard.file_row == 0]

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def id_type(self) -> ScalarType:
        """Type of the ids; row numbers are int64."""
        return self.reader.id_type or "int64"

    @property
    def label_type(self) -> ScalarType | None:
        """Type of the labels, None without a label column."""
        return self.reader.label_type

    def framed(self, frame: Frame) -> Source:
        """Return the same dataset, read in a frame, which knows the factor too."""
        return dataclasses.replace(self, reader=dataclasses.replace(self.reader, frame=frame), is_framed=True)

    def carrying(self) -> Source:
        """Return the same dataset whose blocks hold the carried columns, too."""
        columns = self.reader.columns._replace(carried=tuple(self.carried.names))
        return dataclasses.replace(self, reader=dataclasses.replace(self.reader, columns=columns, carried=self.carried))

    def read_blocks(
        self, shard: SourceShard, block_rows: int | None = None, left_out: list[pa.RecordBatch] | None = None
    ) -> Iterator[Block]:
        """Stream one shard; see :meth:`ShardReader.read_blocks`."""
        return self.reader.read_blocks(shard, block_rows, left_out)

    def fingerprint(self) -> str:
        """Return the digest of every shard's name, size and time of change, and of how they are read.

        What is carried is left out, because only the output depends on it, and so is the shape of pictures. Names
        are relative to what ``data.path`` names, so a dataset moved with its times keeps its fingerprint.
        """
        return self._digest([_identity(shard) for shard in self.shards])

    def shard_fingerprints(self) -> list[str]:
        """Return each shard's own digest: what its rows, read like this, and their ids depend on."""
        numbered = self.config.id_column is None  # by the rows of all shards before
        return [self._digest([*_identity(shard), shard.first_row if numbered else None]) for shard in self.shards]

    def _digest(self, files: list[Any]) -> str:
        config = self.config.model_dump(exclude={"path", "follow_links", "carry", "image_shape"})
        frame = {} if self.reader.frame.is_plain else {"frame": self.reader.frame.properties()}
        text = json.dumps({"files": files, "config": config, **frame}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _identity(shard: SourceShard) -> tuple[str | int | None, ...]:
    piece = () if shard.parts is None else (shard.file_row, shard.n_rows)
    version = () if shard.file.version is None else (shard.file.version,)
    return shard.file.name, shard.file.size, shard.file.mtime_ns, *version, *piece


def _read_header(config: SourceConfig, file: ShardFile, format_name: FormatName) -> Header:
    if file.size == 0:
        raise EmptyShardError(f"{file.uri}: is an empty file; delete it or write it again")
    with reading(file, format_name):
        header = FORMATS[format_name].header(file, config.columns, config.on_bad_rows == "quarantine")
    if header.dim < 1 and header.n_rows and not header.all_null:
        raise UnsupportedTypeError(f"{file.uri}: vectors have width 0, or all are null; expected a width of at least 1")
    return header


def _typical(shards: Sequence[tuple[ShardFile, FormatName, Header]]) -> tuple[ShardFile, Header]:
    """Return the first shard of the width that most rows have, so that it is the odd one that is blamed.

    Raises:
        UnsupportedTypeError: none has a width; a shard whose vectors are all null, fit for quarantine, has none.
    """
    n_rows: Counter[int] = Counter()
    for _, _, header in shards:
        n_rows[header.dim] += header.n_rows
    del n_rows[0]
    if not n_rows:
        raise UnsupportedTypeError(
            f"{shards[0][0].uri}: every vector of the dataset is null; check data.column", parameters=["data.column"]
        )
    dim = n_rows.most_common(1)[0][0]
    return next((file, header) for file, _, header in shards if header.dim == dim)


def _refuse_other_features(
    columns: Columns, first_file: ShardFile, first: Header, file: ShardFile, header: Header
) -> None:
    """Refuse a shard whose columns fit a pattern as well, but are others."""
    if first.schema is not None and header.schema is not None:
        expected, found = columns.features_of(first.schema), columns.features_of(header.schema)
        if expected != found:
            odd = min(set(expected).symmetric_difference(found))
            raise UnknownColumnError(
                f"{file.uri}: its columns {columns.vector!r} are others than in {first_file.uri}, such as {odd!r}; all "
                "shards of a dataset need the same",
                parameters=["data.column"],
            )


def _refuse_mixture(first_file: ShardFile, first: Header, file: ShardFile, header: Header) -> None:
    if header.dim != first.dim and not header.all_null:
        raise ShardWidthError(
            f"{file.uri}: vectors have width {header.dim}, but {first.dim} in {first_file.uri}; "
            "all shards of a dataset need the same width"
        )
    for role, kind, first_kind in (
        ("ids", header.id_type, first.id_type),
        ("labels", header.label_type, first.label_type),
    ):
        if kind != first_kind:
            raise UnsupportedTypeError(
                f"{file.uri}: {role} are {kind}, but {first_kind} in {first_file.uri}; use one type in all shards"
            )
