"""Everything the report shows, as plain values, so that a page can be made without a run.

A model takes what it names from the facts of a run and passes over the rest.

Shape letters: E trained functions, C clusters, S sampled rows, H histogram bins.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distspectral.graph.config import Metric


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Histogram(_Facts):
    """H counts between H + 1 ascending edges; both lists may be empty."""

    counts: list[int]
    edges: list[float]

    @model_validator(mode="after")
    def _edges_enclose_counts(self) -> Self:
        if self.counts and len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"histogram: {len(self.counts)} counts need one more edge, got {len(self.edges)} edges")
        return self


class GraphFacts(_Facts):
    """The neighbour graph in numbers."""

    n_neighbors: int
    affinity: str = Field(description="name of the affinity, such as 'self-tuning'")
    space: str = Field("the vectors", description="what neighbours were searched in")
    metric: Metric = Field("l2", description="by which they were searched")
    given: str | None = Field(None, description="where the graph lies, if it was made elsewhere")
    hubs: dict[str, Any] | None = Field(None, description="what a trial of metrics found, if there was one")
    components: int
    largest_component_share: float = Field(description="share of the rows in the largest component, 0 to 1")
    in_degree_max: int | None = Field(None, description="rows of which one is a neighbour, at most")
    in_degree_skewness: float | None = Field(None, description="third standardised moment of that number")
    orphans: float | None = Field(None, description="share of the rows that are nobody's neighbour, 0 to 1")
    degree_min: float
    degree_median: float
    degree_max: float
    degree_histogram: Histogram
    cells: int = Field(1, description="overlapping cells in which neighbours were searched; 1: all rows against all")
    copies: float = Field(1.0, description="cells of a row")
    predicted_recall: float | None = Field(None, description="of the neighbour search, by a sample, before it")
    reached_recall: float | None = Field(None, description="by another sample, after it")
    links: int = Field(0, description="edges that were added to connect components")
    components_before: int | None = Field(None, description="components before these were added")


class TrainingWindow(_Facts):
    """What training measured over one window of steps."""

    step: int
    loss: float
    ritz_values: list[float] = Field(description="(E,) ascending")
    ritz_sum: float
    learning_rate: float


class TrainingFacts(_Facts):
    """How training went."""

    steps: int
    edges_per_second: float
    stopped_because: str = Field(description="completes the sentence 'Training stopped because ...'")
    history: list[TrainingWindow] = Field(default_factory=list)


class SpectrumFacts(_Facts):
    """The calibrated Ritz values.

    Attributes:
        ritz_values: (E,) all trained functions, ascending.
        n_kept: the lowest ``n_kept`` of them form the embedding.
        suggested_n_clusters: number of values below the largest relative gap; None without a gap.
        gaps: ``gaps[e]`` is the relative gap between ``ritz_values[e]`` and ``ritz_values[e + 1]``; may be empty.
    """

    ritz_values: list[float]
    n_kept: int
    suggested_n_clusters: int | None = None
    gaps: list[float] = Field(default_factory=list)

    @model_validator(mode="after")
    def _gaps_lie_between_values(self) -> Self:
        if len(self.gaps) > max(len(self.ritz_values) - 1, 0):
            raise ValueError(f"spectrum: {len(self.gaps)} gaps do not fit between {len(self.ritz_values)} Ritz values")
        return self


class CapacityFacts(_Facts):
    """The network's size beside the worst case, and the Ritz sum of all edges beside that of the edges drawn last.

    Attributes:
        widths: of the network's input, layers and output.
        needed: a tenth of the rows, the least VC dimension of clustering them.
        sigmoid: order of a network of this size with sigmoid layers.
        relu: likewise with the layers it has.
        drawn: Ritz sum in the last window of training.
        every: over every edge.
        unseen: share of the edges that no step drew.
        advice: what to do about it.
    """

    widths: list[int]
    needed: float
    sigmoid: float
    relu: float
    drawn: float
    every: float
    unseen: float
    advice: str


class CertificateFacts(_Facts):
    """How wrong the kept functions are at most; see :class:`distspectral.spectral.certificate.Certificate`.

    Attributes:
        method: ``polish`` or ``residuals``.
        converged: whether a polish came to its end.
        passes: of the polish over the graph.
        mean_sin2: bound of the mean error.
        sin2: (P,) bound of each function's.
        near_sin2: (P,) likewise where functions of near eigenvalues count as right.
        words: the verdict.
    """

    method: str
    converged: bool
    passes: int
    mean_sin2: float
    sin2: list[float]
    near_sin2: list[float]
    words: str


class ClusterFacts(_Facts):
    """(C,) rows per cluster, and how good it is without labels, by cluster number."""

    n_clusters: int
    sizes: list[int]
    mean_distance: list[float] = Field(description="to the centroid")
    silhouette: list[float] = Field(description="mean: 0 half-way to another cluster, 1 at the centroid")
    conductance: list[float] = Field(description="share of the affinity that leads out")
    nearest: list[int] = Field(description="other cluster by affinity relative to chance; -1: no edge leads out")
    found_by: str = Field(description="how they were found, and how far the runs of k-means agreed, in words")

    @model_validator(mode="after")
    def _one_entry_per_cluster(self) -> Self:
        columns = ("sizes", "mean_distance", "silhouette", "conductance", "nearest")
        found = {name: len(getattr(self, name)) for name in columns}
        if set(found.values()) != {self.n_clusters}:
            raise ValueError(f"clusters: n_clusters {self.n_clusters} must be the number of all columns, got {found}")
        return self


class ScatterSample(_Facts):
    """(S,) sampled rows: the first two non-constant coordinates, the cluster and, where known, the label."""

    x: list[float]
    y: list[float]
    cluster: list[int]
    labels: list[int | str] | None = None
    n_rows_sampled: int

    @model_validator(mode="after")
    def _columns_are_equally_long(self) -> Self:
        lengths = {len(self.x), len(self.y), len(self.cluster)} | ({len(self.labels)} if self.labels else set())
        if len(lengths) != 1:
            raise ValueError(f"scatter: x, y, cluster and labels must be equally long, got lengths {sorted(lengths)}")
        return self


class Scores(_Facts):
    """Agreement of clusters with labels: accuracy of the best matching, NMI and ARI."""

    acc: float
    nmi: float
    ari: float


class ReportData(_Facts):
    """One run, ready to be shown.

    Attributes:
        name: the run's name.
        created_at: when the report was made; an ISO string is parsed.
        version: of distspectral.
        config: the resolved config, nested plain values.
        n_rows: rows of the dataset.
        dim: their width.
        n_shards: source shards.
        dtype: of the stored vectors.
        seconds: stage to wall-clock seconds, in the order of the run.
        peak_rss_bytes: highest resident memory of one process.
        notes: warnings in plain words; hints the reader should weigh.
    """

    name: str
    created_at: datetime
    version: str
    config: dict[str, Any]
    n_rows: int
    dim: int
    n_shards: int
    dtype: str
    seconds: dict[str, float]
    peak_rss_bytes: int
    graph: GraphFacts
    training: TrainingFacts
    spectrum: SpectrumFacts
    clusters: ClusterFacts
    scatter: ScatterSample
    certificate: CertificateFacts | None = None
    capacity: CapacityFacts | None = None
    evaluation: Scores | None = None
    notes: list[str] = Field(default_factory=list)
