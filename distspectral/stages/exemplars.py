"""The most central and the border rows of each cluster: what a person looks at to name it.

Central rows are nearest to their centroid; border rows have the least margin, by which the next centroid is farther.
Both stand in the output, written by whoever computed the distances, so one pass over these columns finds them, however
the output was made: in one call, by job arrays, or with shards kept from an earlier one.

Shape letters: B rows, C clusters, M rows kept of each.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from distspectral.costs.bill import Bill
from distspectral.embedding.columns import MEANINGS, Column, written_columns
from distspectral.frozen import FrozenModel
from distspectral.mapping import Mapper, local_map
from distspectral.spectral.exemplars import first_of_each, rank_within
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output

FILE = "exemplars.parquet"
NEEDED: tuple[Column, ...] = ("cluster", "distance", "margin")
KINDS: dict[str, Column] = {"central": "distance", "border": "margin"}
"""What an exemplar is, and the column by whose least values it is found."""
ROW = "row"
BLOCK_ROWS = 1 << 17
"""Rows of the output that are looked at at once."""
FINDING = "finding exemplars"


class ExemplarsConfig(FrozenModel):
    """Rows that stand for their cluster (YAML section ``exemplars``)."""

    n_rows: PositiveInt = Field(10, description="central rows of each cluster, and as many on its border")


def exemplars(rows: Artifact, output: Output, config: ExemplarsConfig, mapper: Mapper = local_map) -> Manifest:
    """Write the artifact ``exemplars``: one Parquet file, by cluster, kind and rank.

    Columns: ``cluster``; ``kind``, ``central`` or ``border``; ``rank`` from 0; ``id`` and what else the output carries
    of the source; ``distance``; ``margin``. Of equals the earlier row comes first. The driver holds 2 C M rows and as
    many again for a shard.

    Args:
        rows: finished ``output`` artifact; without the columns needed the file is left out.
        output: where the artifact goes.
        config: how many.
        mapper: runs a task for each shard.
    """
    output.begin()
    manifest = rows.manifest()
    if not set(NEEDED) <= set(written_columns(manifest)):
        return output.commit([], {"rows": 0}, {})
    items = [(shard.name, first) for shard, first in manifest.shards_and_first_rows]
    task = functools.partial(_of_shard, rows=rows, n_kept=config.n_rows)
    found: dict[str, pa.Table] | None = None
    for part in mapper(task, items, FINDING):
        if part is None:  # all rows of the shard are in quarantine
            continue
        found = part if found is None else _merged(found, part, config.n_rows)
    assert found is not None, "an output has rows"
    table = _table(found)
    output.artifact.write_file(FILE, lambda stream: pq.write_table(table, stream, compression="zstd"))
    return output.commit([], {"rows": table.num_rows}, {}, files=(FILE,))


def best(table: pa.Table, column: str, n_kept: int) -> pa.Table:
    """Return the rows with the least values of each cluster, M at most, by cluster, value and row; infinite ones not.

    Args:
        table: with ``cluster``, ``row`` and the column.
        column: of numbers.
        n_kept: M.
    """
    clusters, values, rows = (table[name].to_numpy() for name in ("cluster", column, ROW))
    return table.take(pa.array(first_of_each(clusters, values, rows, n_kept)))


def _of_shard(item: tuple[str, int], *, rows: Artifact, n_kept: int) -> dict[str, pa.Table] | None:
    """Return the exemplars of one shard by kind; None if it has no rows."""
    name, first = item
    found: dict[str, pa.Table] | None = None
    with rows.filesystem.open_input_file(rows.file_path(name)) as file:
        shard = pq.ParquetFile(file)
        columns = [column for column in shard.schema_arrow.names if column not in MEANINGS or column in NEEDED]
        for batch in shard.iter_batches(BLOCK_ROWS, columns=columns):
            own = pa.array(np.arange(first, first + batch.num_rows))
            table = pa.Table.from_batches([batch]).append_column(ROW, own)
            first += batch.num_rows
            part = {kind: best(table, by, n_kept) for kind, by in KINDS.items()}
            found = part if found is None else _merged(found, part, n_kept)
    return found


def _merged(found: dict[str, pa.Table], more: dict[str, pa.Table], n_kept: int) -> dict[str, pa.Table]:
    return {kind: best(pa.concat_tables([found[kind], more[kind]]), by, n_kept) for kind, by in KINDS.items()}


def _table(found: dict[str, pa.Table]) -> pa.Table:
    """Return exemplars by kind as one table, by cluster, kind and rank."""
    parts = []
    for kind, table in found.items():
        rank = rank_within(table["cluster"].to_numpy()).astype(np.int32)
        columns = {"cluster": table["cluster"], "kind": pa.array([kind] * len(rank), pa.string()), "rank": rank}
        carried = [name for name in table.schema.names if name not in (*NEEDED, ROW)]
        columns |= {name: table[name] for name in (*carried, "distance", "margin")}
        parts.append(pa.table(columns))
    whole = pa.concat_tables(parts)
    order: NDArray[np.int64] = np.argsort(whole["cluster"].to_numpy(), kind="stable")
    return whole.take(pa.array(order))


def _run(work: Work) -> Manifest:
    return exemplars(work.artifacts["embed"], work.output, work.settings["exemplars"], work.mapper)


def _cost(bill: Bill) -> None:
    bill.cores({"columns": bill.us(FINDING)})
    bill.alone()
    bill.read = bill.n_rows * 20  # id, cluster, distance, margin
    bill.written = bill.kept


def _facts(manifests: Manifests) -> dict[str, Any]:
    n_rows = manifests["exemplars"].properties["rows"]
    return {"rows": n_rows, "file": f"{EXEMPLARS.folder}/{FILE}" if n_rows else None}


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    return {"exemplars": facts["file"]} if facts["file"] else {}


def _notes(metrics: dict[str, Any]) -> list[str]:
    if metrics["exemplars"]["file"]:
        return []
    return [f"There are no exemplars: they need {', '.join(NEEDED)} in embed.columns."]


EXEMPLARS = Stage(
    name="exemplars",
    folder="exemplars",
    purpose="Find the most central and the border rows of each cluster.",
    done="found exemplars",
    inputs=lambda recipe: ("embed",),
    sections=("exemplars",),
    workers="tasks",
    run=_run,
    cost=_cost,
    facts=_facts,
    lines=_lines,
    notes=_notes,
)
