from __future__ import annotations

from typing import Any

import pytest

from distspectral.cli.console import print_result, record_table, text
from distspectral.report.formats import MISSING


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"write_seconds": 75, "bytes_per_row": 39.72}, "write seconds 1 min 15 s, bytes per row 39.72"),
        ({"busy_seconds": {"read": 2.0}}, "busy seconds read 2.0 s"),
        ({"write_share": 0.25, "peak_bytes": 3 << 30}, "write share 25%, peak bytes 3.0 GiB"),
        ((0.91239, 0.0123), "0.9124 (0.0123)"),
        ([1_234_567.8, True, None], f"1,234,568, yes, {MISSING}"),
        ([], "none"),
        (list(range(13)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (13 in all)"),
    ],
)
def test_a_value_reads_as_the_last_word_of_its_key_says(value: Any, shown: str) -> None:
    assert text(value) == shown


@pytest.mark.parametrize("n_records", [1, 2, 3])
def test_the_longer_side_of_records_goes_down(n_records: int) -> None:
    table = record_table("title", {f"record {index}": {"a": 1, "b": {"c": 2}} for index in range(n_records)})
    keys, names = ["a", "b, c"], [f"record {index}" for index in range(n_records)]
    across, down = (names, keys) if n_records <= len(keys) else (keys, names)
    assert [column.header for column in table.columns[1:]] == across
    assert list(table.columns[0].cells) == down


def test_groups_of_records_are_tables_and_what_remains_is_facts(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"n_rows": 70_000, "cases": [{"name": "one [x]", "p50_ms": 1.5}, {"name": "two", "p50_ms": 2.5}]}
    print_result("Serving", result)
    printed = capsys.readouterr().out
    assert "Serving: cases" in printed
    for shown in ("n rows", "70,000", "one [x]", "two", "p50 ms", "1.5"):
        assert shown in printed
    assert "name" not in printed
