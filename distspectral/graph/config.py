"""The graph's two config sections, ``graph`` (who is a neighbour) and ``affinity`` (how much it weighs)."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize, Field, model_validator

from distspectral.errors import ConfigError, TooFewRowsError
from distspectral.frozen import FrozenModel, Seed
from distspectral.spectral.affinity import FORMULAS, AffinityKind, needs_scales

MAX_NEIGHBORS = 1024
"""A GPU search returns at most 2,048 candidates a row; half of them leave room for ties."""

EXACT_ROWS = 50_000
"""Up to here ``method: auto`` searches exactly: quadratic, but cheaper than cutting."""

MIN_TASK_MEMORY = 64 << 20

Metric = Literal["auto", "l2", "cosine", "centered_cosine", "inner_product"]
Connect = Literal["none", "nearest"]
AffinitySpace = Literal["euclidean", "siamese", "auto"]
LocalSolver = Literal["exact", "nn_descent", "hnsw"]


class GraphConfig(FrozenModel):
    """The nearest-neighbour search, or the graph that stands in its place."""

    path: str | None = Field(
        None,
        description="Graph made elsewhere, of the rows in their order, in place of a search: a folder with ids.npy and "
        "distances.npy or squared_distances.npy; a .npz of such arrays; a matrix that scipy.sparse.save_npz wrote; an "
        ".h5ad file. Matrices hold distances, or affinities where affinity.kind is precomputed. The other keys of this "
        "section but connect are then without effect.",
    )
    n_neighbors: int = Field(15, ge=1, le=MAX_NEIGHBORS, description="Neighbours of each row, the row itself excluded.")
    metric: Metric = Field(
        "auto",
        description="l2: Euclidean; cosine: Euclidean between rows of length 1; centered_cosine: the same after the "
        "mean of all rows was subtracted; inner_product: largest first; auto: l2, or centered_cosine where a trial on "
        "sampled rows finds that its neighbours tell clearly more of a row.",
    )
    method: Literal["auto", "exact", "cells"] = Field(
        "auto",
        description=f"exact: every row against every row; cells: inside overlapping cells, tuned by a sample; auto: "
        f"exact up to {EXACT_ROWS:,} rows.",
    )
    target_recall: float = Field(
        0.985, gt=0.5, lt=1, description="Share of the true neighbours that cells are tuned to find."
    )
    task_memory: ByteSize = Field(
        ByteSize(1 << 30),
        ge=MIN_TASK_MEMORY,
        description="Bytes, or text such as 1GiB, that one task may take for its rows.",
    )
    solver: Literal["auto", "exact", "nn_descent", "hnsw"] = Field(
        "auto", description="Inside a cell; auto: by device, cell size and dimension."
    )
    connect: Connect = Field("none", description="nearest: link components to their nearest others until one is left.")
    seed: Seed = Field(0, description="Of samples, cells and local solvers.")
    block_rows: int | None = Field(
        None, ge=1, description="Rows of one task, which writes one shard; null: chosen from the vectors' size."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to search: auto takes a GPU if FAISS and the machine have one."
    )

    @model_validator(mode="after")
    def _inner_product_is_exact(self) -> GraphConfig:
        if self.metric == "inner_product" and self.method == "cells":
            raise ValueError(
                "metric inner_product has no cells: a row as a query is not the point it is as a neighbour; "
                "set method to exact, or metric to cosine"
            )
        return self

    @property
    def stated_metric(self) -> Metric:
        """The metric that a graph made elsewhere is taken to be of, where links are sought and rows compared."""
        return "l2" if self.metric == "auto" else self.metric

    def searches_cells(self, n_rows: int) -> bool:
        """Whether a dataset of ``n_rows`` is cut into cells."""
        return self.method == "cells" or (
            self.method == "auto" and n_rows > EXACT_ROWS and self.metric != "inner_product"
        )


class AffinityConfig(FrozenModel):
    """How distances become affinities."""

    kind: AffinityKind = Field(
        "self_tuning",
        description="; ".join(f"{kind}: {formula}" for kind, formula in FORMULAS.items()),
    )
    space: AffinitySpace = Field(
        "auto",
        description="whose distances weigh the edges; siamese: those of a network trained on the graph's edges; auto: "
        "siamese, unless clusters by these weights are more uneven, for they then fragment the graph.",
    )
    scale_neighbor: int = Field(
        7, ge=1, le=MAX_NEIGHBORS, description="Which neighbour's distance is the scale (self_tuning and gaussian)."
    )
    scope: Literal["global", "batch"] = Field(
        "global",
        description="global: edges of the whole dataset's graph; batch: neighbours inside each training batch, "
        "the SpectralNet paper's scheme, for comparison.",
    )


def check(n_neighbors: int, affinity: AffinityConfig) -> None:
    """Refuse a scale neighbour that no row has.

    Args:
        n_neighbors: neighbours each row has, ``graph.n_neighbors``.
        affinity: the section ``affinity``.

    Raises:
        ConfigError: ``affinity.scale_neighbor`` is used and larger than ``n_neighbors``.
    """
    if needs_scales(affinity.kind) and affinity.scale_neighbor > n_neighbors:
        raise ConfigError(
            f"affinity.scale_neighbor: is {affinity.scale_neighbor}, but each row has only {n_neighbors} neighbours "
            "(graph.n_neighbors); lower the one or raise the other",
            parameters=["affinity.scale_neighbor", "graph.n_neighbors"],
        )


def refuse_too_few(n_rows: int, n_neighbors: int) -> None:
    """Refuse data with fewer than ``n_neighbors + 1`` rows.

    Raises:
        TooFewRowsError: just that.
    """
    if n_rows < n_neighbors + 1:
        raise TooFewRowsError(
            f"the data has {n_rows} rows, but a graph of {n_neighbors} neighbours a row needs at least "
            f"{n_neighbors + 1}; lower graph.n_neighbors or bring more rows",
            parameters=["graph.n_neighbors"],
        )
