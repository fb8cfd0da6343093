"""What every format tells of a shard: a header, then record batches; and one error where neither can be read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from distspectral.errors import CorruptShardError, DistSpectralError, first_line
from distspectral.storage.rows.columns import ScalarType
from distspectral.storage.source.columns import Columns
from distspectral.storage.source.listing import ShardFile


@dataclasses.dataclass(frozen=True)
class Header:
    """What a shard says of itself before its rows are read.

    Attributes:
        n_rows: number of rows.
        dim: width of the vectors.
        id_type: type of the id column, None where none was asked for.
        label_type: type of the label column, None where none was asked for.
        all_null: whether ``dim`` is 0 because every vector is null, told only by a lenient look.
        parts: rows of each part that can be read without those before it (row groups, record batches); None where
            every row is one.
        schema: of all columns, None where the format has none.
    """

    n_rows: int
    dim: int
    id_type: ScalarType | None = None
    label_type: ScalarType | None = None
    all_null: bool = False
    parts: Sequence[int] | None = None
    schema: pa.Schema | None = None


class Threads(NamedTuple):
    """What decodes a shard.

    Attributes:
        number: of them.
        held_rows: most rows that several of them hold decoded, together.
    """

    number: int
    held_rows: int


ONE_THREAD = Threads(1, 0)


@dataclasses.dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        extensions: of its files, lower case with the dot.
        header: reads the header or footer only (an Arrow stream has neither and is walked once); a lenient look, its
            last argument, takes the commonest width of a List column instead of refusing ragged rows.
        batches: yields record batches of the columns, at most so many rows each, of the parts asked for (None: all);
            several threads are of use where there is something to decode.
    """

    extensions: tuple[str, ...]
    header: Callable[[ShardFile, Columns, bool], Header]
    batches: Callable[[ShardFile, Columns, int, range | None, Threads], Iterator[pa.RecordBatch]]


@contextlib.contextmanager
def reading(file: ShardFile, format_name: str) -> Iterator[None]:
    """Turn what a parser raises into one error that names the shard.

    A remote file system's OSError passes through: a retry may cure it, where no retry cures a corrupt file.

    Raises:
        CorruptShardError: the shard cannot be parsed.
    """
    try:
        yield
    except DistSpectralError:
        raise  # some are ValueErrors too, and say what is wrong already
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not file.is_local:
            raise
        raise CorruptShardError(
            f"{file.uri}: cannot be read as {format_name} ({first_line(error)}); write the shard again or set "
            "data.format",
            parameters=["data.format"],
        ) from error
