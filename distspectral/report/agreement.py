"""A finished run's clusters beside labels that lie elsewhere, joined by id.

Shape letters: L classes, C clusters.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from distspectral.embedding.columns import require_column
from distspectral.embedding.scores import tally
from distspectral.errors import ConfigError, SourceError, UnknownColumnError
from distspectral.report.confusion import confusion_matrix
from distspectral.spectral.diagnostics import label_agreement
from distspectral.stages.finished_run import FinishedRun
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.filesystems import resolve

PICTURE = "confusion.svg"
FORMATS = {"parquet": "parquet", "arrow": "ipc", "feather": "ipc", "csv": "csv"}


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Rows by class and cluster.

    Attributes:
        counts: (L, C).
        classes: (L,) labels as text.
        n_unlabeled: rows of the run that have no label.
    """

    counts: NDArray[np.int64]
    classes: tuple[str, ...]
    n_unlabeled: int = 0

    def scores(self) -> dict[str, Any]:
        """Return ``acc``, ``nmi``, ``ari`` and ``n_rows``."""
        return {**label_agreement(self.counts), "n_rows": int(self.counts.sum())}

    def by_cluster(self) -> list[dict[str, Any]]:
        """Return each cluster's rows, its most frequent label, and that label's share of it."""
        totals, best = self.counts.sum(0), self.counts.argmax(0)
        return [
            {
                "cluster": cluster,
                "rows": int(total),
                "label": self.classes[best[cluster]] if total else "",
                "share": float(self.counts[best[cluster], cluster] / max(total, 1)),
            }
            for cluster, total in enumerate(totals)
        ]

    def matched_clusters(self) -> NDArray[np.int64]:
        """Return all clusters (C,), those that the best one-to-one matching gives to classes first, in their order."""
        rows, columns = linear_sum_assignment(self.counts, maximize=True)
        matched = columns[np.argsort(rows)]
        return np.concatenate([matched, np.setdiff1d(np.arange(self.counts.shape[1]), matched)])


def agreement(run: Artifact, labels: str | None, id_column: str, label_column: str) -> Agreement:
    """Return how a run's clusters and labels fall together.

    Args:
        run: directory of a finished run, or of ``distspectral embed RUN NEW``.
        labels: path or URI of a file or folder (Parquet, Arrow IPC or CSV) with a column of ids and one of labels;
            None takes the labels that the run's own data had.
        id_column: name of the ids, the run's output ids.
        label_column: name of the labels.

    Raises:
        MissingArtifactError: the run has no finished output.
        UnknownColumnError: the labels lack a column.
        SourceError: the labels cannot be read, hold an id twice, or label none of the rows.
        ConfigError: the output was written without clusters.
    """
    output = run if run.has(MANIFEST) else FinishedRun(run).artifact("embed")
    manifest = output.manifest()
    if (n_clusters := manifest.properties.get("n_clusters")) is None:
        raise ConfigError(
            f"{output.uri}: was written without clusters; of a learned metric --retrieval says how good it is"
        )
    if labels is None:
        found = tally(manifest.shards, n_clusters)
        if found is None:
            raise SourceError(f"{run.uri}: its data had no label column; name a file of labels with --labels")
        return Agreement(found[0], tuple(found[1]))
    require_column(manifest, "cluster", output.uri)
    ids, texts = _read_labels(labels, id_column, label_column)
    classes, codes = np.unique(np.asarray(texts.to_pylist(), dtype=str), return_inverse=True)
    counts, n_unlabeled = np.zeros((len(classes), n_clusters), np.int64), 0
    for shard in manifest.shards:
        table = pq.read_table(output.file_path(shard.name), columns=["id", "cluster"], filesystem=output.filesystem)
        own = table["id"].combine_chunks()
        if own.type != ids.type:  # of other kinds, those are equal that read alike
            own, ids = own.cast(pa.string()), ids.cast(pa.string())
        place = pc.index_in(own, value_set=ids)
        known = np.asarray(pc.is_valid(place))
        places = place.drop_null().to_numpy(zero_copy_only=False)
        np.add.at(counts, (codes[places], table["cluster"].to_numpy()[known]), 1)
        n_unlabeled += int((~known).sum())
    if not counts.any():
        raise SourceError(
            f"{labels}: labels none of the run's {manifest.n_rows} rows; its column {id_column} must hold the ids that "
            f"{output.uri} has"
        )
    return Agreement(counts, tuple(classes), n_unlabeled)


def write_picture(run: Artifact, found: Agreement) -> str:
    """Write the confusion matrix into the run's directory and return its place."""
    order = found.matched_clusters()
    picture = confusion_matrix(found.counts[:, order], found.classes, order.tolist())
    run.write_bytes(PICTURE, picture.encode())
    return f"{run.uri}/{PICTURE}"


def _read_labels(path: str, id_column: str, label_column: str) -> tuple[pa.Array, pa.ChunkedArray]:
    """Return the ids and labels of a file or folder."""
    filesystem, location = resolve(path)
    kind = FORMATS.get(path.rstrip("/").rpartition(".")[2], "parquet")
    try:
        dataset = ds.dataset(location, filesystem=filesystem, format=kind)
        for column in (id_column, label_column):
            if column not in dataset.schema.names:
                raise UnknownColumnError(
                    f"{path}: has no column {column!r}, only {', '.join(dataset.schema.names)}; "
                    "name them with --id-column and --label-column"
                )
        table = dataset.to_table(columns=[id_column, label_column]).drop_null()
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path}: cannot be read as labels ({error}); give Parquet, Arrow IPC or CSV") from error
    ids = table[id_column].combine_chunks()
    if pa.types.is_dictionary(ids.type):  # as pandas writes categories
        ids = ids.dictionary_decode()
    if pc.count_distinct(ids).as_py() != len(ids):
        raise SourceError(f"{path}: column {id_column} holds an id twice; a row can have one label only")
    return ids, table[label_column]
