"""What pyarrow.dataset parses and no footer tells of: CSV and JSON lines, walked once for their rows; and ORC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset

from distspectral.errors import UnsupportedTypeError
from distspectral.storage.source.columns import Columns
from distspectral.storage.source.formats.format import Format, Header, Threads
from distspectral.storage.source.formats.tables import common_width, completed, inside, table_header, validated
from distspectral.storage.source.listing import ShardFile

LOOK_ROWS = 1 << 14
"""First rows whose commonest width is that of a column of lists."""


def fragment_format(
    extensions: tuple[str, ...], kind: Callable[[], pyarrow.dataset.FileFormat], *, is_text: bool = True
) -> Format:
    """Return the format that ``pyarrow.dataset`` calls ``kind``; a file is read as a whole, in order.

    Args:
        extensions: of its files.
        kind: makes pyarrow's format.
        is_text: whether types are read off the cells.
    """

    def fragment(file: ShardFile) -> Any:
        return kind().make_fragment(file.path, file.filesystem)

    def scanned(file: ShardFile, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        scanner = fragment(file).scanner(
            columns=names, batch_size=rows, batch_readahead=1, fragment_readahead=1, use_threads=False
        )
        for batch in scanner.to_batches():
            for start in range(0, batch.num_rows, rows):
                yield validated(batch.slice(start, rows))

    def header(file: ShardFile, columns: Columns, lenient: bool) -> Header:
        schema = fragment(file).physical_schema
        n_rows = fragment(file).count_rows()
        if not n_rows:
            return Header(0, 0)
        dim, types = table_header(schema, columns, file)
        if is_text:
            _require_numbers(schema, columns, file)
        if dim is None:
            dim = common_width(scanned(file, [columns.vector], LOOK_ROWS), columns)
        return Header(n_rows, dim, **types, all_null=lenient and not dim, parts=[n_rows])

    def batches(
        file: ShardFile, columns: Columns, rows: int, parts: range | None, threads: Threads
    ) -> Iterator[pa.RecordBatch]:
        del parts, threads
        names = inside(columns, fragment(file).physical_schema, file)
        for batch in scanned(file, names, rows):
            yield completed(batch, columns, file)

    return Format(extensions, header, batches)


def _require_numbers(schema: pa.Schema, columns: Columns, file: ShardFile) -> None:
    """Refuse a feature that one cell made a column of text, for it would be passed over.

    Raises:
        UnsupportedTypeError: just that.
    """
    for name in columns.passed_over(schema):
        raise UnsupportedTypeError(
            f"{file.uri}: column {name!r} fits data.column = {columns.features!r}, but holds {schema.field(name).type} "
            "and no numbers, for which one such cell is enough; mend it, or set data.column to a pattern that fits "
            "fewer columns, or to a list",
            parameters=["data.column"],
        )


def _tabs() -> pyarrow.dataset.FileFormat:
    return pyarrow.dataset.CsvFileFormat(pyarrow.csv.ParseOptions(delimiter="\t"))


CSV = fragment_format((".csv",), lambda: pyarrow.dataset.CsvFileFormat())
TSV = fragment_format((".tsv",), _tabs)
JSONL = fragment_format((".jsonl", ".ndjson"), lambda: pyarrow.dataset.JsonFileFormat())
ORC = fragment_format((".orc",), lambda: pyarrow.dataset.OrcFileFormat(), is_text=False)
