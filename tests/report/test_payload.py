from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest

from distspectral.report import payload as module
from distspectral.report.data import ReportData
from distspectral.report.packing import first_that_fits, packed, shortened, whole_type
from distspectral.report.payload import payload


def raw(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def whole(found: dict[str, str]) -> list[int]:
    return np.frombuffer(raw(found["data"]), found["type"]).tolist()


def test_rows_arrive_as_they_are(full: ReportData) -> None:
    rows = payload(full)["rows"]
    assert rows["n"] == 200
    assert whole(rows["cluster"]) == full.rows.cluster
    labels = [rows["label"]["names"][number] for number in whole(rows["label"]["data"])]
    assert labels == full.rows.labels
    x = np.frombuffer(raw(rows["x"]), np.uint16)
    assert np.array_equal(np.argsort(x, kind="stable"), np.argsort(full.rows.x, kind="stable"))
    assert json.loads(raw(rows["ids"])) == full.rows.ids


def test_columns_are_numbers_categories_or_texts(full: ReportData) -> None:
    columns = {column["name"]: column for column in payload(full)["rows"]["columns"]}
    assert {name: column["kind"] for name, column in columns.items()} == {
        "text": "text",
        "kind": "category",
        "length": "number",
    }
    assert columns["kind"]["names"] == ["", "even"]
    length = np.frombuffer(raw(columns["length"]["data"]), np.float32)
    assert np.isnan(length[0])
    assert length[1:].tolist() == list(range(199))
    assert json.loads(raw(columns["text"]["data"])) == full.rows.columns["text"]


def test_numbers_among_the_names_come_in_their_order(values: Any) -> None:
    data = values()
    data["rows"]["labels"] = [("10", "9", "-1", "b")[row % 4] for row in range(200)]
    assert payload(ReportData.model_validate(data))["rows"]["label"]["names"] == ["-1", "9", "10", "b"]


def test_the_tree_arrives_whole(full: ReportData) -> None:
    assert full.tree is not None
    tree = payload(full)["tree"]
    assert np.frombuffer(raw(tree["children"]), np.uint32).tolist() == full.tree.children
    assert np.frombuffer(raw(tree["rows"]), np.float64).tolist() == full.tree.rows


def test_texts_and_ids_beyond_their_budget_are_cut_and_then_left_out(
    values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = values()
    rng = np.random.default_rng(0)
    data["rows"]["columns"] = {"text": ["".join(map(chr, rng.integers(97, 123, 300))) for _ in range(200)]}
    monkeypatch.setattr(module, "TEXT_BUDGET", 30_000)
    (column,) = payload(ReportData.model_validate(data))["rows"]["columns"]
    texts = json.loads(raw(column["data"]))
    assert len(column["data"]) <= 30_000
    assert max(map(len, texts)) == 160
    assert texts[0].endswith("…")
    monkeypatch.setattr(module, "TEXT_BUDGET", 300)
    monkeypatch.setattr(module, "ID_BUDGET", 10)
    rows = payload(ReportData.model_validate(data))["rows"]
    assert rows["columns"] == []
    assert rows["ids"] is None


def test_packing_takes_the_narrowest_type_and_little_endian_bytes() -> None:
    assert [whole_type(most) for most in (0, 255, 256, 65_536)] == ["uint8", "uint8", "uint16", "uint32"]
    assert raw(packed(np.array([1, 2], ">u2"))) == b"\x01\x00\x02\x00"
    assert first_that_fits(iter(["long", "abc"]), len, 3) == "abc"
    assert shortened(["abcd", "abc", None], 3) == ["ab…", "abc", None]
