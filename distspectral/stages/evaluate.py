"""Recall@K, MAP@R and NMI of an embedding on the classes that training never saw, streamed over its shards.

Rows are compared by the cosine; the search is exact and leaves out the query itself by its number. Beside the metric,
rows as they are are judged: a metric of few classes may tell unseen ones apart worse than no metric.

Shape letters: N evaluated rows, Q queries, B rows of a block, E embedding width, P directions kept, C classes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal, cast

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from pydantic import Field

from distspectral.clustering.config import ClusterConfig
from distspectral.clustering.k_means import fit_centroids
from distspectral.costs.bill import Bill, Map
from distspectral.errors import ConfigError, TooFewClassesError
from distspectral.frozen import FrozenModel
from distspectral.graph.search.exact import ExactSolver, rows_per_task
from distspectral.mapping import Mapper, in_order, local_map
from distspectral.models.assigner import squared_distances
from distspectral.spectral.diagnostics import normalized_mutual_information
from distspectral.spectral.retrieval import average_precision_at_r, recall_hits, span_basis
from distspectral.stages.stage import Manifests, Stage, Work
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors

RECALL_AT = (1, 2, 4, 8, 10, 100)
BLOCK_ROWS = 1 << 13
KMEANS = ClusterConfig(restarts=1, iterations=30)
"""One run: with as many clusters as classes, often hundreds, runs differ by less than NMI's third digit."""
NEIGHBORS_IN_MEMORY = 1 << 24
MOST_QUERIES = 8_192
"""Of rows as they are, which may be far wider than the embedding: their Recall@1 is then known to half a percent."""
WORSE = 0.01
"""By which the Recall@1 of rows as they are is above the metric's, if it is said to be worse."""


class EvaluateConfig(FrozenModel):
    """How an embedding is judged (YAML section ``evaluate``)."""

    spectral_step: bool = Field(
        False, description="the paper's test-time step: centre the evaluated rows, thin SVD, keep the span"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="of the search; auto = cuda where there is one")


@dataclasses.dataclass(frozen=True)
class UnitRows:
    """Some rows of an embedding, mapped and scaled to length 1, for the search to read; picklable.

    Attributes:
        vectors: the whole embedding.
        rows: (N,) rows of it.
        center: (E,) float64, subtracted first.
        basis: (E, P) float64 that rows are multiplied by; None: by nothing.
    """

    vectors: Vectors
    rows: NDArray[np.int64]
    center: NDArray[np.float64]
    basis: NDArray[np.float64] | None

    @property
    def n_rows(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def dim(self) -> int:
        """P."""
        return self.vectors.dim if self.basis is None else int(self.basis.shape[1])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the unit rows (B, P); see :meth:`Vectors.gather`."""
        points = self.vectors.gather(self.rows[rows]) - self.center
        if self.basis is not None:
            points = points @ self.basis
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (points / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)
        return unit

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive unit rows; see :meth:`Vectors.block`."""
        return self.gather(np.arange(start, stop))


def evaluate_retrieval(
    vectors: Artifact,
    embedding: Artifact,
    output: Output,
    config: EvaluateConfig,
    seed: int,
    mapper: Mapper = local_map,
) -> Manifest:
    """Write the artifact ``evaluation``: scores in its manifest, none where no class was held out.

    Args:
        vectors: finished ``vectors`` artifact.
        embedding: finished ``embedding`` artifact of the same rows.
        output: where the artifact ``evaluation`` goes.
        config: how rows are compared.
        seed: of k-means.
        mapper: hands out ranges of queries.
    """
    output.begin()
    try:
        scores: dict[str, Any] = {
            "retrieval": retrieval(embedding, config, seed, mapper),
            "retrieval_of_rows": retrieval_of_rows(vectors, embedding, config, seed, mapper),
        }
    except TooFewClassesError as error:
        scores = {"not_evaluated": str(error)}
    return output.commit([], {}, scores)


def evaluate_again(embedding: Artifact, evaluation: Artifact, spectral_step: bool | None) -> dict[str, Any]:
    """Return the scores of a run's embedding, computed now; see :func:`retrieval`.

    Args:
        embedding: finished ``embedding`` artifact.
        evaluation: the run's own; its config is used, where it is there.
        spectral_step: in place of what that config says.
    """
    config, seed = EvaluateConfig(), 0
    if evaluation.has(MANIFEST):
        values = evaluation.manifest().config
        config, seed = EvaluateConfig.model_validate({k: v for k, v in values.items() if k != "seed"}), values["seed"]
    if spectral_step is not None:
        config = config.model_copy(update={"spectral_step": spectral_step})
    return retrieval(embedding, config, seed)


def retrieval(embedding: Artifact, config: EvaluateConfig, seed: int, mapper: Mapper = local_map) -> dict[str, Any]:
    """Return ``recall_at`` by K, ``nmi`` and ``map_at_r`` of the unseen classes.

    Args:
        embedding: finished ``embedding`` artifact.
        config: how rows are compared.
        seed: of k-means.
        mapper: hands out ranges of queries.

    Raises:
        ConfigError: the rows have no labels.
        TooFewClassesError: fewer than two classes are unseen, or none of them has two rows.
    """
    vectors = MappedVectors(embedding)
    rows, classes = unseen_rows(vectors, embedding)
    center, basis = comparison(vectors, rows, config.spectral_step)
    return scores_of(UnitRows(vectors, rows, center, basis), classes, config, seed, mapper)


def scores_of(
    points: UnitRows,
    classes: NDArray[np.int64],
    config: EvaluateConfig,
    seed: int,
    mapper: Mapper = local_map,
    *,
    task_rows: int | None = None,
    block_rows: int = BLOCK_ROWS,
) -> dict[str, Any]:
    """Return the scores of unit rows; see :func:`retrieval`.

    Args:
        points: the N evaluated rows.
        classes: (N,) in [0, C), each of them present.
        config: device of the search.
        seed: of k-means.
        mapper: hands out ranges of queries.
        task_rows: queries of a task; None = as many as make it worth a task.
        block_rows: rows compared with the centroids at once.
    """
    found = _found(points, classes, len(classes), config, mapper, "evaluating", task_rows)
    return {"recall_at": found["recall_at"], "nmi": _nmi(points, classes, seed, block_rows), **found}


def retrieval_of_rows(
    vectors: Artifact, embedding: Artifact, config: EvaluateConfig, seed: int, mapper: Mapper = local_map
) -> dict[str, Any]:
    """Return ``recall_at`` by K and ``map_at_r`` of the unseen classes' rows as they are, by the cosine about the mean.

    Of many rows, sampled ones ask, all others answer.

    Args:
        vectors: finished ``vectors`` artifact.
        embedding: finished ``embedding`` artifact of the same rows, which says what classes training saw.
        config: device of the search.
        seed: of the queries.
        mapper: hands out ranges of queries.

    Raises:
        ConfigError: the rows have no labels.
        TooFewClassesError: fewer than two classes are unseen, or none of them has two rows.
    """
    rows, classes = unseen_rows(MappedVectors(embedding), embedding)
    asking = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_QUERIES])
    order = np.concatenate([asking, np.setdiff1d(np.arange(len(rows)), asking, assume_unique=True)])
    as_they_are = MappedVectors(vectors)
    points = UnitRows(as_they_are, rows[order], as_they_are.mean, None)
    return _found(points, classes[order], len(asking), config, mapper, "comparing rows")


def _found(
    points: UnitRows,
    classes: NDArray[np.int64],
    n_asking: int,
    config: EvaluateConfig,
    mapper: Mapper,
    description: str,
    task_rows: int | None = None,
) -> dict[str, Any]:
    """Return ``recall_at`` and ``map_at_r`` of the first rows, each of which searches all."""
    others = np.bincount(classes) - 1
    n_queries = int((others[classes[:n_asking]] > 0).sum())
    if len(others) < 2 or n_queries == 0:
        raise TooFewClassesError(
            f"{len(classes)} rows of {len(others)} unseen classes are there to evaluate; at least 2 classes, one of "
            "them with 2 rows, are needed"
        )
    n_neighbors = min(max(*RECALL_AT, int(others.max())), len(classes) - 1)
    step = max(1, min(task_rows or rows_per_task(len(classes), points.dim), NEIGHBORS_IN_MEMORY // n_neighbors))
    ranges = [(start, min(start + step, n_asking)) for start in range(0, n_asking, step)]
    task = functools.partial(_range_scores, points, classes, n_neighbors, config.device)
    parts = list(in_order(mapper, task, ranges, description))
    hits, precision = np.sum([part[0] for part in parts], axis=0), sum(part[1] for part in parts)
    return {
        "recall_at": {str(cut): float(hit / n_queries) for cut, hit in zip(RECALL_AT, hits, strict=True)},
        "map_at_r": float(precision / n_queries),
    }


def unseen_rows(vectors: MappedVectors, embedding: Artifact) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ascending rows (N,) of classes that training did not see, and their classes (N,) in [0, C).

    Raises:
        ConfigError: the rows have no labels.
        TooFewClassesError: no class was held out.
    """
    column = vectors.labels()
    if column is None:
        raise ConfigError(f"{embedding.uri}: its rows have no labels to judge by; set data.label_column and run again")
    labels, last = np.asarray(column.drop_null()), embedding.manifest().properties["last_train_class"]
    unseen = labels > last
    rows = np.flatnonzero(np.asarray(column.is_valid()))[unseen]
    if not len(rows):
        raise TooFewClassesError(
            f"{embedding.uri}: training saw all classes (up to {last!r}), so none is left to judge by; hold some out "
            "with dscl.train_classes"
        )
    return rows, np.unique(labels[unseen], return_inverse=True)[1]


def comparison(
    vectors: Vectors, rows: NDArray[np.int64], spectral_step: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what is subtracted (E,) from rows and what they are multiplied by (E, P) before lengths become 1."""
    width = vectors.dim
    if not spectral_step:
        return np.zeros(width), np.eye(width)
    total, products = np.zeros(width), np.zeros((width, width))
    for block in _blocks(vectors, rows):
        total += block.sum(axis=0)
    mean = total / len(rows)
    for block in _blocks(vectors, rows):  # a second pass: the mean may be far larger than the spread
        products += (block - mean).T @ (block - mean)
    return mean, span_basis(products)


def _blocks(vectors: Vectors, rows: NDArray[np.int64]) -> Any:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield vectors.gather(rows[start : start + BLOCK_ROWS]).astype(np.float64)


def _range_scores(
    points: UnitRows,
    classes: NDArray[np.int64],
    n_neighbors: int,
    device: Literal["auto", "cpu", "cuda"],
    queries: tuple[int, int],
) -> tuple[NDArray[np.int64], float]:
    """Return hits by cut-off and the sum of average precisions of a range; one task."""
    start, stop = queries
    no_surplus = np.empty(0, dtype=np.int64)
    solver = ExactSolver(n_neighbors, np.zeros(points.dim, np.float32), no_surplus, device)
    neighbors, _ = solver(cast(Vectors, points), start, stop)  # a search reads rows, not their statistics
    own = classes[start:stop]
    relevant = (np.bincount(classes) - 1)[own]
    asked = relevant > 0  # a class of one row has no neighbour to find
    hits = (classes[neighbors] == own[:, None])[asked]
    return recall_hits(hits, RECALL_AT), float(average_precision_at_r(hits, relevant[asked]).sum())


def _nmi(points: UnitRows, classes: NDArray[np.int64], seed: int, block_rows: int) -> float:
    """Return the NMI of k-means with as many clusters as there are classes."""
    n_classes = int(classes.max()) + 1
    sample = np.sort(np.random.default_rng(seed).permutation(points.n_rows)[: max(KMEANS.sample_rows, n_classes)])
    centroids = torch.from_numpy(fit_centroids(points.gather(sample), n_classes, KMEANS, seed).centroids)
    contingency = scipy.sparse.csr_matrix((n_classes, n_classes), dtype=np.int64)
    for start in range(0, points.n_rows, block_rows):
        stop = min(start + block_rows, points.n_rows)
        found = squared_distances(torch.from_numpy(points.block(start, stop)), centroids).argmin(1).numpy()
        ones = np.ones(stop - start, dtype=np.int64)
        contingency += scipy.sparse.coo_matrix((ones, (classes[start:stop], found)), (n_classes, n_classes)).tocsr()
    return normalized_mutual_information(contingency)


def _run(work: Work) -> Manifest:
    vectors, embedding = work.artifacts["pack"], work.artifacts["embed"]
    config, seed = work.settings["evaluate"], work.settings["seed"]
    return evaluate_retrieval(vectors, embedding, work.output, config, seed, work.mapper)


def _cost(bill: Bill) -> None:
    sample_rows = bill.rates.sample_rows
    us = bill.us("evaluating") + bill.alone_s * 1e6 / sample_rows
    n_rows = math.ceil(bill.n_rows)
    asking = min(n_rows, MOST_QUERIES)
    # of all rows on average, as the terms of a bill are
    rows_us = bill.us("comparing rows") * asking / min(sample_rows, MOST_QUERIES)
    bill.cores({"all pairs": us * bill.n_rows / sample_rows, "rows as they are": rows_us})
    widths = ((n_rows, bill.recipe.layers["train"][-1]), (asking, bill.recipe.dim))
    bill.maps = [Map(-(-queries // rows_per_task(n_rows, width))) for queries, width in widths]
    bill.read = bill.kept_by("embed", "pack")


def _facts(manifests: Manifests) -> dict[str, Any]:
    found = manifests["evaluate"].metrics
    return {key: found[key] for key in ("retrieval", "retrieval_of_rows", "not_evaluated") if key in found}


def rows_in_words(facts: dict[str, Any]) -> str:
    """Return the Recall@1 of the rows as they are beside the metric's, in sentences."""
    learned, of_rows = (facts[name]["recall_at"]["1"] for name in ("retrieval", "retrieval_of_rows"))
    told = f"Of the rows as they are, by the cosine about their mean, {of_rows:.1%} have."
    if of_rows <= learned + WORSE:
        return told
    return (
        f"{told} So the metric tells unseen classes apart worse than no metric does: compare rows as they are, or "
        "learn from more classes."
    )


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    if "retrieval" not in facts:
        return {}
    learned, of_rows = (facts[name]["recall_at"]["1"] for name in ("retrieval", "retrieval_of_rows"))
    verdict = ", better than the metric" if of_rows > learned + WORSE else ""
    return {**retrieval_lines(facts["retrieval"]), "Recall@1 of the rows as they are": f"{of_rows:.4f}{verdict}"}


def retrieval_lines(scores: dict[str, Any]) -> dict[str, str]:
    """Return the scores of unseen classes as rows of a table: heading and text."""
    recall = scores["recall_at"]
    return {
        f"Recall@{', '.join(recall)}": " / ".join(f"{value:.4f}" for value in recall.values()),
        "NMI, MAP@R": f"{scores['nmi']:.4f}, {scores['map_at_r']:.4f}",
    }


EVALUATE = Stage(
    name="evaluate",
    folder="evaluation",
    purpose="Judge the metric by classes that training never saw.",
    done="evaluated",
    inputs=lambda recipe: ("pack", "embed"),
    sections=("evaluate", "seed"),
    harmless=("evaluate.device",),
    workers="tasks",
    run=_run,
    cost=_cost,
    facts=_facts,
    lines=_lines,
)
