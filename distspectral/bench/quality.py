"""Clusters judged by labels, which enter no choice, and those of our own runs.

Shape letters: N rows, D features, C clusters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.metrics.cluster import contingency_matrix

from distspectral.bench.spectrum import compare_with_exact
from distspectral.config.load import parse_config
from distspectral.config.run import RunConfig
from distspectral.graph.search.faiss_search import knn
from distspectral.orchestration.engine import Engine
from distspectral.orchestration.new_rows import embed_new_rows
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import Pipeline
from distspectral.spectral.diagnostics import label_agreement
from distspectral.storage.source.dataset import Source

VOTERS = 15
"""Labelled neighbours that vote on a row without a label."""

Scores = dict[str, Any]


def judged(labels: NDArray[Any], found: NDArray[np.int64], rows: NDArray[np.float32]) -> Scores:
    """Return how far clusters agree with labels.

    Returns:
        ``acc``, ``nmi`` and ``ari`` of all rows, those left out filled by :func:`filled`; the number of ``clusters``
        and ``n_rows``. Where rows are left out, also the scores of the others alone, ``covered_acc`` and so on (but if
        there are none), and their share, ``covered``.

    Args:
        labels: (N,) of any kind.
        found: (N,) clusters, -1 for a row left out.
        rows: (N, D).
    """
    kept = found >= 0
    result: Scores = {"n_rows": len(found), "clusters": len(np.unique(found[kept]))}
    if not kept.all():
        result["covered"] = float(kept.mean())
        if kept.any():
            alone = label_agreement(contingency_matrix(labels[kept], found[kept]))
            result |= {f"covered_{key}": value for key, value in alone.items()}
    return label_agreement(contingency_matrix(labels, filled(found, rows))) | result


def filled(found: NDArray[np.int64], rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return clusters (N,) in which rows left out have that of most of their nearest rows with one.

    Args:
        found: (N,) clusters, -1 for a row left out; all are left out: one cluster.
        rows: (N, D).
    """
    out, kept = np.flatnonzero(found < 0), np.flatnonzero(found >= 0)
    if not len(out):
        return found
    if not len(kept):
        return np.zeros_like(found)
    _, nearest = knn(rows[out], rows[kept], min(VOTERS, len(kept)))
    votes = np.zeros((len(out), found.max() + 1), np.int64)
    np.add.at(votes, (np.arange(len(out))[:, None], found[kept][nearest]), 1)
    whole = found.copy()
    whole[out] = votes.argmax(axis=1)
    return whole


@dataclasses.dataclass(frozen=True)
class OurRun:
    """One of our runs, to be made or to be found finished.

    Attributes:
        paths: of the shards, with the columns vector and label.
        held_out: of shards that are embedded afterwards.
        root: of the run.
        seed: of everything.
        n_clusters: C.
        overrides: of the config, which has the defaults.
        engine: who does the stages' work.
    """

    paths: Sequence[str]
    held_out: Sequence[str]
    root: str
    seed: int
    n_clusters: int
    overrides: Sequence[str]
    engine: Callable[[RunConfig], Engine]

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        """Yield what makes it."""
        values = {
            "name": "quality",
            "root": self.root,
            "seed": self.seed,
            "data": {"path": list(self.paths), "label_column": "label"},
            "cluster": {"n_clusters": self.n_clusters},
        }
        config = parse_config(yaml.safe_dump(values), "bench quality", self.overrides)
        engine = self.engine(config)
        try:
            yield Pipeline(config, Source.open(config.data), engine, SilentObserver())
        finally:
            engine.close()


def distspectral(run: OurRun) -> Scores:
    """Return the scores of a run, what it took and decided, and the scores of held-out rows as ``held_out_acc``, ..."""
    with run.pipeline() as pipeline:
        metrics = pipeline.run()
        made = [output.artifact.manifest() for output in pipeline.chain.outputs.values()]
        held_out = {}
        if run.held_out:
            data = pipeline.config.data.model_copy(update={"path": list(run.held_out)})
            manifest = embed_new_rows(pipeline, Source.open(data), f"{run.root}/held-out")
            held_out = {f"held_out_{key}": value for key, value in manifest.metrics["agreement"].items()}
    return {
        **metrics["embed"]["agreement"],
        **held_out,
        "n_rows": metrics["n_rows"],
        "core_seconds": sum(sum(one.metrics["core_seconds"].values()) for one in made),
        "seconds": sum(metrics["seconds"].values()),
        "stages": metrics["seconds"],
        "peak_rss_bytes": metrics["peak_rss_bytes"],
        "decisions": decisions(metrics),
    }


def exact(run: OurRun) -> Scores:
    """Return the scores of the exact eigenvectors of a run's graph, clustered by its recipe; the run is made first."""
    with run.pipeline() as pipeline:
        pipeline.run()
    spent, clock = time.process_time(), time.perf_counter()
    found = compare_with_exact(pipeline.chain.root)
    took = {"core_seconds": time.process_time() - spent, "seconds": time.perf_counter() - clock}
    return {**found["exact_agreement"], "n_rows": found["n_rows"], "mean_sin2": found["mean_sin2"], **took}


OURS: dict[str, Callable[[OurRun], Scores]] = {"distspectral": distspectral, "exact": exact}
"""Methods that take a run."""


def decisions(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return by ``stage.key`` what stages chose: yes or no, a word or several; and the variance that codes keep."""
    by_stage = {stage: facts for stage, facts in metrics.items() if isinstance(facts, dict)}
    told = {f"{stage}.{key}": value for stage, facts in by_stage.items() for key, value in facts.items()}
    return {key: value for key, value in told.items() if _is_choice(value) or key == "codes.explained_variance"}


def _is_choice(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_choice, value))
    return isinstance(value, bool) or (isinstance(value, str) and value.isidentifier())
