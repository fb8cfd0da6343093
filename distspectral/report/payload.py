"""What the page's script gets: rows, tree, clusters and exemplars as one JSON object of short strings.

Every part has a budget of bytes, so that a page stays below five megabytes whatever the run holds.
Shape letters: S sampled rows, M leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distspectral.report.data import Cell, Pictures, ReportData, RowSample, TreeFacts
from distspectral.report.packing import first_that_fits, packed, packed_json, shortened, whole_type
from distspectral.report.rows import Square

ID_BUDGET, TEXT_BUDGET, NUMBER_BUDGET = 850_000, 800_000, 500_000
"""Bytes of the ids, of all carried texts, and of all carried numbers and categories."""
MOST_CATEGORIES = 100
"""Different texts of a column up to which rows can be coloured by it."""
GRID = (1 << 16) - 1


def payload(data: ReportData) -> dict[str, Any]:
    """Return the object; arrays in it are strings of :mod:`distspectral.report.packing`."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "n_rows": data.n_rows,
        "clusters": data.clusters.model_dump(exclude={"found_by", "mean_distance"}),
        "rows": _rows(data.rows) if data.rows.n_rows else None,
        "pictures": _pictures(data.row_pictures),
        "exemplars": None
        if data.exemplars is None
        else packed_json(data.exemplars.model_dump(include={"cluster", "kind", "ids", "columns"})),
        "exemplar_pictures": _pictures(data.exemplar_pictures),
        "tree": None if data.tree is None else _tree(data.tree),
        "labels": None if data.confusion is None else _frequent_labels(data),
    }


def _rows(sample: RowSample) -> dict[str, Any]:
    x, y = np.asarray(sample.x), np.asarray(sample.y)
    places = Square(x, y, sample.place).places(x, y)
    cells = np.round(places * GRID).astype(np.uint16)
    found: dict[str, Any] = {
        "n": sample.n_rows,
        "place": sample.place,
        "x": packed(cells[:, 0]),
        "y": packed(cells[:, 1]),
        "cluster": _whole(sample.cluster),
        "leaf": None if sample.leaf is None else _whole(sample.leaf),
        "outlier": None if sample.outlier is None else _whole([int(one) for one in sample.outlier]),
        "label": None if sample.labels is None else _categories([str(one) for one in sample.labels]),
        "ids": first_that_fits((packed_json(shortened(sample.ids, n)) for n in (200, 40, 16)), len, ID_BUDGET),
        "columns": _columns(sample.columns),
    }
    if (density := sample.density) is not None:
        shades = np.log1p(np.asarray(density.counts, float))
        shades = np.round(255 * shades / max(float(shades.max()), 1e-9)).astype(np.uint8)
        found["density"] = {"side": density.side, "n_rows": density.n_rows, "shades": packed(shades)}
    return found


def _columns(columns: dict[str, list[Cell]]) -> list[dict[str, Any]]:
    """Return carried columns by what they are: numbers, categories, or texts that are only read."""
    found: list[dict[str, Any]] = []
    left, texts = NUMBER_BUDGET, {}
    for name, cells in columns.items():
        if not any(isinstance(cell, str) for cell in cells):
            made: dict[str, Any] = {"kind": "number", "data": packed(np.array(cells, np.float32))}  # None is NaN
        elif len(set(cells)) <= MOST_CATEGORIES:
            made = {"kind": "category"} | _categories(["" if cell is None else str(cell) for cell in cells])
        else:
            texts[name] = [None if cell is None else str(cell) for cell in cells]
            continue
        if (left := left - len(made["data"])) >= 0:
            found.append({"name": name} | made)
    for name, cells_of_text in texts.items():
        lengths = (300, 160, 80, 40)
        budget = TEXT_BUDGET // len(texts)
        fits = first_that_fits((packed_json(shortened(cells_of_text, n)) for n in lengths), len, budget)
        if fits is not None:
            found.append({"name": name, "kind": "text", "data": fits})
    return found


def _categories(texts: Sequence[str]) -> dict[str, Any]:
    """Return texts as numbers and the names these stand for: whole numbers in their order, before words."""
    names = sorted(set(texts), key=lambda name: (0, int(name), name) if _is_whole(name) else (1, 0, name))
    place = {name: index for index, name in enumerate(names)}
    return {"names": shortened(names, 80), "data": _whole([place[text] for text in texts])}


def _is_whole(text: str) -> bool:
    return text.isascii() and text.lstrip("-").isdigit() and text.count("-") <= 1 and len(text) < 19


def _whole(numbers: Sequence[int]) -> dict[str, str]:
    kind = whole_type(max(numbers, default=0))
    return {"type": kind, "data": packed(np.asarray(numbers, kind))}


def _pictures(found: Pictures | None) -> dict[str, Any] | None:
    return None if found is None else found.model_dump()


def _tree(tree: TreeFacts) -> dict[str, Any]:
    kinds = {"affinity": "float32", "conductance": "float32", "rows": "float64"}
    return {name: packed(np.asarray(values, kinds.get(name, "uint32"))) for name, values in tree.model_dump().items()}


def _frequent_labels(data: ReportData) -> list[dict[str, Any]]:
    """Return the most frequent label of each cluster and its share."""
    assert data.confusion is not None
    counts = np.asarray(data.confusion.counts)
    best, totals = counts.argmax(0), np.maximum(counts.sum(0), 1)
    shares = counts.max(0) / totals
    names = shortened(data.confusion.classes, 40)
    return [{"name": names[one], "share": float(share)} for one, share in zip(best, shares, strict=True)]
