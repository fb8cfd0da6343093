"""Clusters of a run that starts from another one: numbered like those of the other where they hold the same rows.

The rows that both runs have are known by their ids, so that what is new is told from what was there. Ids of sampled
rows are looked for in the other's output, shard by shard: what is held does not grow with either run. Labels by the
other's model would need no ids, but they put new kinds of rows, which it never saw, into some cluster that it has.

Shape letters: n sampled rows, C clusters.
"""

from __future__ import annotations

import functools
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
from distspectral.embedding.few_rows import ids_of
from distspectral.mapping import Mapper, local_map
from distspectral.models.assigner import Assigner
from distspectral.spectral.lineage import EVENTS, UNKNOWN, Lineage, lineage
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.rows.drawing import drawn_rows

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
    vectors: Artifact,
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    assigner: Assigner,
    n_sampled: int,
    seed: int,
    mapper: Mapper,
) -> tuple[Assigner, Lineage, dict[str, Any]]:
    """Return the assigner with its clusters numbered anew, what became of the earlier ones, and facts of that.

    Args:
        before: ``output`` artifact of the run to start from, with the column ``cluster``.
        vectors: finished ``vectors`` artifact of this run, N rows.
        embed: returns the P components (n, P) of rows (n,), ascending.
        assigner: fitted.
        n_sampled: rows that are looked for, at most.
        seed: of their choice.
        mapper: runs the tasks that read ids.

    Returns:
        assigner: the same with its centroids in another order.
        lineage: see :func:`distspectral.spectral.lineage.lineage`.
        facts: ``sampled_rows``, ``known_rows`` of them, and how often each event happened.
    """
    rng = np.random.default_rng(seed + SEED_STEP)
    n_rows = vectors.manifest().n_rows
    rows = drawn_rows(n_rows, n_sampled, rng)
    old = earlier_clusters(before, ids_of(vectors, rows, mapper), mapper)
    new = assigner(torch.from_numpy(embed(rows)))[0].numpy()
    found = lineage(old, new, int(before.manifest().properties["n_clusters"]), len(assigner.centroids))
    order = torch.from_numpy(np.argsort(found.numbers))
    renumbered = Assigner.from_state(assigner.state() | {"centroids": assigner.centroids[order]})
    counts: dict[str, int] = {event: sum(one.event == event for one in found.records) for event in EVENTS}
    known = int(np.count_nonzero(old != UNKNOWN))
    if not known:
        logger.warning("No sampled row has an id of %s: clusters are numbered anew", before.uri)
    return renumbered, found, {"sampled_rows": len(rows), "known_rows": known, **counts}


def earlier_clusters(output: Artifact, ids: pa.Array, mapper: Mapper = local_map) -> NDArray[np.int64]:
    """Return the cluster (n,) that each row has in an output, by its id; :data:`UNKNOWN` of one that it lacks.

    Args:
        output: finished ``output`` artifact.
        ids: (n,) different ones.
        mapper: runs a task for each shard.
    """
    found = np.full(len(ids), UNKNOWN, np.int64)
    names = [shard.name for shard in output.manifest().shards]
    for places, clusters in mapper(functools.partial(_looked_up, output, ids), names, "looking up ids"):
        found[places] = clusters
    return found


def _looked_up(output: Artifact, ids: pa.Array, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places (any,) of ids that a shard of an output has, and their clusters."""
    places, clusters = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    with output.filesystem.open_input_file(output.file_path(name)) as file:
        for batch in pq.ParquetFile(file).iter_batches(columns=["id", "cluster"]):
            if batch.column("id").type != ids.type:  # none is the same
                break
            at = pc.index_in(batch.column("id"), value_set=ids)
            places.append(at.drop_null().to_numpy().astype(np.int64))
            clusters.append(batch.column("cluster").to_numpy()[at.is_valid().to_numpy(zero_copy_only=False)])
    return np.concatenate(places), np.concatenate(clusters)


def write_lineage(artifact: Artifact, found: Lineage) -> None:
    """Write the records as one Parquet file."""
    table = pa.Table.from_pylist([record._asdict() for record in found.records], schema=SCHEMA)
    artifact.write_file(FILE, lambda stream: pq.write_table(table, stream))
