"""The rows behind the verdict: which of them make a warning, by their ids, and where they are drawn.

Shape letters: N rows, S sampled rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from distspectral.graph.facts import hubs_rule
from distspectral.report.checks import TITLES
from distspectral.report.data import Cause, CauseRow, RowSample
from distspectral.report.packing import shortened
from distspectral.report.rows import as_text
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.quarantine import FOLDER
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.text import plural

NAMED = 5
"""Rows of a kind that are named."""
LONGEST_ID = 60
SEARCHED_BYTES = 1 << 30
"""Of vectors, up to which the rows far from all others are looked for."""
BLOCK_ROWS = 4096


def causes(
    metrics: Mapping[str, Any],
    embedded_graph: str,
    packed: tuple[Artifact, Manifest],
    sample: RowSample,
    rows: NDArray[np.int64],
) -> dict[str, list[Cause]]:
    """Return the rows that would cause a warning, by the title of its check; of each kind the worst, or the first.

    Args:
        metrics: of the run, as in ``metrics.json``.
        embedded_graph: stage that writes the graph whose functions are learned.
        packed: finished ``vectors`` artifact, and its manifest.
        sample: the rows drawn.
        rows: (S,) their numbers in the whole output, ascending.
    """
    vectors, facts = MappedVectors(packed[0]), metrics[embedded_graph]
    ids = vectors.ids()
    found: dict[str, list[Cause]] = {"graph": [], "pack": [], "outliers": []}

    def add(stage: str, words: str, numbers: Sequence[int]) -> None:
        named = shortened(as_text(ids.take(pa.array(numbers, pa.int64()))), LONGEST_ID)
        shown = [CauseRow(id=str(name), drawn=_place(one, rows)) for one, name in zip(numbers, named, strict=True)]
        found[stage] += [Cause(words=words, rows=shown)] if shown else []

    if hubs_rule(facts):
        add("graph", "Neighbours of most", facts["hub_rows"])
        add("graph", "Nobody's neighbours", facts["orphan_rows"])
    for one in facts["small_components"]:
        add("graph", f"A piece of {plural(one['size'], 'row')}", one["rows"])
    if "times_as_far_as_usual" in metrics.get("pack", {}):
        add("pack", "Farthest from the mean", farthest_from_mean(vectors))
    found["pack"] += left_out(*packed)
    add("outliers", "Farthest from their centroids, of those drawn", rows[sample.farthest].tolist())
    return {TITLES[stage]: told for stage, told in found.items() if told}


def farthest_from_mean(vectors: Vectors) -> list[int]:
    """Return the numbers of the rows farthest from the mean of all, these first; none of vectors too large to read."""
    if 4 * vectors.n_rows * vectors.dim > SEARCHED_BYTES:
        return []
    blocks = ((first, min(first + BLOCK_ROWS, vectors.n_rows)) for first in range(0, vectors.n_rows, BLOCK_ROWS))
    distances = np.concatenate([np.square(vectors.block(*one) - vectors.mean).sum(1) for one in blocks])
    farthest: list[int] = np.argsort(-distances, kind="stable")[:NAMED].tolist()
    return farthest


def left_out(vectors: Artifact, manifest: Manifest) -> list[Cause]:
    """Return the first rows that are in quarantine, which are drawn nowhere; one without an id by its file and row."""
    named: list[str] = []
    for path in (file for file in manifest.files if file.startswith(FOLDER)):
        with vectors.filesystem.open_input_file(vectors.file_path(path)) as stream:
            table = pa.ipc.open_file(stream).read_all().slice(0, NAMED - len(named))
        places = zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True)
        pairs = zip(table["id"].is_valid().to_pylist(), as_text(table["id"]), places, strict=True)
        named += [name if known else f"row {row} of {file.rpartition('/')[2]}" for known, name, (file, row) in pairs]
        if len(named) == NAMED:
            break
    rows = [CauseRow(id=str(name)) for name in shortened(named, LONGEST_ID)]
    return [Cause(words="Left out", rows=rows)] if rows else []


def _place(row: int, rows: NDArray[np.int64]) -> int | None:
    """Return where a row is among those drawn, None where it is not."""
    place = int(np.searchsorted(rows, row))
    return place if place < len(rows) and rows[place] == row else None
