"""Clusters of a run that starts from another one: numbered like those of the other where they hold the same rows.

The rows that both runs have are known by their ids, so that what is new is told from what was there. Ids of sampled
rows are looked for in the other's output, shard by shard: what is held does not grow with either run. Labels by the
other's model would need no ids, but they put new kinds of rows, which it never saw, into some cluster that it has.

Shape letters: n sampled rows, C clusters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from distspectral.embedding.columns import written_columns
from distspectral.models.assigner import Assigner
from distspectral.spectral.lineage import EVENTS, UNKNOWN, Lineage, lineage
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.rows.vectors import MappedVectors

FILE = "lineage.parquet"
OUTPUT = "output"
"""Folder of the other run's output."""
SEED_STEP = 5
"""Other rows than those that clusters were fitted to."""
SCHEMA = pa.schema(
    [
        ("event", pa.string()),
        ("old", pa.int32()),
        ("new", pa.int32()),
        ("rows", pa.int64()),
        ("share_of_old", pa.float64()),
        ("share_of_new", pa.float64()),
        ("known_share", pa.float64()),
    ]
)

logger = logging.getLogger(__name__)


def earlier_output(root: Artifact) -> Artifact | None:
    """Return a run's finished output, if it has one that says in which cluster a row is."""
    output = root.child(OUTPUT)
    if output.has(MANIFEST) and "cluster" in written_columns(output.manifest()):
        return output
    logger.warning("%s: has no finished output with the column cluster; clusters are numbered anew", root.uri)
    return None


def followed(
    before: Artifact,
    vectors: MappedVectors,
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    assigner: Assigner,
    n_sampled: int,
    seed: int,
) -> tuple[Assigner, Lineage, dict[str, Any]]:
    """Return the assigner with its clusters numbered anew, what became of the earlier ones, and facts of that.

    Args:
        before: ``output`` artifact of the run to start from, with the column ``cluster``.
        vectors: of this run, N rows.
        embed: returns the P components (n, P) of rows (n,), ascending.
        assigner: fitted.
        n_sampled: rows that are looked for, at most.
        seed: of their choice.

    Returns:
        assigner: the same with its centroids in another order.
        lineage: see :func:`distspectral.spectral.lineage.lineage`.
        facts: ``sampled_rows``, ``known_rows`` of them, and how often each event happened.
    """
    rng = np.random.default_rng(seed + SEED_STEP)
    rows = np.sort(rng.choice(vectors.n_rows, min(n_sampled, vectors.n_rows), replace=False))
    old = earlier_clusters(before, vectors.ids().take(pa.array(rows)).combine_chunks())
    new = assigner(torch.from_numpy(embed(rows)))[0].numpy()
    found = lineage(old, new, int(before.manifest().properties["n_clusters"]), len(assigner.centroids))
    order = torch.from_numpy(np.argsort(found.numbers))
    renumbered = Assigner.from_state(assigner.state() | {"centroids": assigner.centroids[order]})
    counts: dict[str, int] = {event: sum(one.event == event for one in found.records) for event in EVENTS}
    known = int(np.count_nonzero(old != UNKNOWN))
    if not known:
        logger.warning("No sampled row has an id of %s: clusters are numbered anew", before.uri)
    return renumbered, found, {"sampled_rows": len(rows), "known_rows": known, **counts}


def earlier_clusters(output: Artifact, ids: pa.Array) -> NDArray[np.int64]:
    """Return the cluster (n,) that each row has in an output, by its id; :data:`UNKNOWN` of one that it lacks.

    Args:
        output: finished ``output`` artifact.
        ids: (n,) different ones.
    """
    found = np.full(len(ids), UNKNOWN, np.int64)
    for shard in output.manifest().shards:
        with output.filesystem.open_input_file(output.file_path(shard.name)) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["id", "cluster"]):
                if batch.column("id").type != ids.type:  # none is the same
                    return found
                places = pc.index_in(batch.column("id"), value_set=ids)
                has = places.is_valid().to_numpy(zero_copy_only=False)
                found[places.drop_null().to_numpy()] = batch.column("cluster").to_numpy()[has]
    return found


def write_lineage(artifact: Artifact, found: Lineage) -> None:
    """Write the records as one Parquet file."""
    table = pa.Table.from_pylist([record._asdict() for record in found.records], schema=SCHEMA)
    artifact.write_file(FILE, lambda stream: pq.write_table(table, stream))
