"""Everything the report shows, as plain values, so that a page can be made without a run.

A model takes what it names from the facts of a run and passes over the rest.

Shape letters: E trained functions, C clusters, L classes, M leaves, S sampled rows, H histogram bins.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

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
    trial: dict[str, Any] | None = Field(None, description="what decided in what and by which distance, if it was open")
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
    """Eigenvalues, as the polish has them; Ritz values of the trained functions where there was none.

    Attributes:
        ritz_values: (E,) of the functions kept, and behind them of others that were trained or polished, ascending.
        n_kept: the lowest ``n_kept`` of them form the embedding.
        gaps: ``gaps[e]`` is the relative gap between ``ritz_values[e]`` and ``ritz_values[e + 1]``; may be empty.
    """

    ritz_values: list[float]
    n_kept: int
    gaps: list[float] = Field(default_factory=list)

    @model_validator(mode="after")
    def _gaps_lie_between_values(self) -> Self:
        if len(self.gaps) > max(len(self.ritz_values) - 1, 0):
            raise ValueError(f"spectrum: {len(self.gaps)} gaps do not fit between {len(self.ritz_values)} Ritz values")
        return self


class CandidateFacts(_Facts):
    """A number of clusters that was considered; see :class:`distspectral.spectral.candidates.Candidate`."""

    n_clusters: int
    score: float
    rise: float
    gap: float
    stability: float


class TaughtFacts(_Facts):
    """What the network learned of the polished functions.

    Attributes:
        passes: products with the graph that the polish took.
        steps: of the distillation.
        loss: share of the functions' squares left unexplained at rows that were taught.
        held_out_loss: likewise, at rows that were not.
    """

    passes: int
    steps: int
    loss: float
    held_out_loss: float


class EdgeFacts(_Facts):
    """The Ritz sum of all edges beside that of the edges drawn last.

    Attributes:
        drawn: Ritz sum that the last window of training tells.
        every: over every edge, or those of sampled rows.
        unseen: share of the edges that no step drew.
        advice: what to do about it.
        sampled_rows: how many, None where every edge was summed.
    """

    drawn: float
    every: float
    unseen: float
    advice: str
    sampled_rows: int | None = None


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
    stability: list[float | None] | None = Field(None, description="share of a cluster found again, where known")

    @model_validator(mode="after")
    def _one_entry_per_cluster(self) -> Self:
        columns = ("sizes", "mean_distance", "silhouette", "conductance", "nearest", "stability")
        found = {name: len(column) for name in columns if (column := getattr(self, name)) is not None}
        if set(found.values()) != {self.n_clusters}:
            raise ValueError(f"clusters: n_clusters {self.n_clusters} must be the number of all columns, got {found}")
        return self


class Density(_Facts):
    """How many counted rows lie in each field of a square grid over the picture.

    Attributes:
        counts: (side x side) row by row, from the lower left.
        n_rows: that were counted.
    """

    side: int
    counts: list[int]
    n_rows: int


class Pictures(_Facts):
    """Pictures (n, height, width, channels) of every ``step``-th row, uint8, deflated, in base64; 1 channel or 3."""

    height: int
    width: int
    channels: int = 1
    step: int
    data: str


Cell = float | str | None


class RowSample(_Facts):
    """(S,) sampled rows: where they lie, and what is known of each.

    Attributes:
        x: first coordinate.
        y: second coordinate.
        place: what the coordinates are: those of the run's map, or two eigenfunctions.
        cluster: number.
        leaf: of the tree; None where the output has no leaves.
        outlier: None where nothing says so.
        labels: None without labels.
        ids: as text.
        columns: carried from the source, by name: numbers, or text.
        density: of more rows than are drawn.
        farthest: places (at most 5) in this sample of the outliers farthest from their centroids, these first.
    """

    x: list[float]
    y: list[float]
    place: Literal["map", "eigenfunctions"] = "eigenfunctions"
    cluster: list[int]
    leaf: list[int] | None = None
    outlier: list[bool] | None = None
    labels: list[int | str] | None = None
    ids: list[str] = Field(default_factory=list)
    columns: dict[str, list[Cell]] = Field(default_factory=dict)
    density: Density | None = None
    farthest: list[int] = Field(default_factory=list)

    @property
    def n_rows(self) -> int:
        """S."""
        return len(self.x)

    @model_validator(mode="after")
    def _columns_are_equally_long(self) -> Self:
        columns = [self.x, self.y, self.cluster, self.leaf, self.outlier, self.labels, self.ids, *self.columns.values()]
        lengths = {len(column) for column in columns if column}
        if len(lengths) > 1:
            raise ValueError(f"rows: x, y, cluster, labels and columns differ in length: {sorted(lengths)}")
        return self


class ExemplarFacts(_Facts):
    """Rows that stand for their cluster, by cluster, kind and rank.

    Attributes:
        cluster: number.
        kind: ``central`` or ``border``.
        ids: as text.
        columns: carried from the source.
    """

    cluster: list[int]
    kind: list[str]
    ids: list[str]
    columns: dict[str, list[Cell]] = Field(default_factory=dict)


class TreeFacts(_Facts):
    """The tree as the page needs it: M leaves and M - 1 mergers, or its top where it has more.

    Attributes:
        nodes: (2M - 1,) numbers in the run's own tree.
        children: (2M - 2) pairs of each merger, one after the other.
        rows: (2M - 1,).
        affinity: (M - 1,) of each merger's children, relative to chance.
        conductance: (2M - 1,).
        clusters: (M,) the run's cluster of each leaf.
    """

    nodes: list[int]
    children: list[int]
    rows: list[int]
    affinity: list[float]
    conductance: list[float]
    clusters: list[int]


class Confusion(_Facts):
    """Rows (L, C) by class and cluster, and the classes (L,)."""

    counts: list[list[int]]
    classes: list[str]


class CauseRow(_Facts):
    """A row by its id, and its place among the rows drawn; None where it is not drawn."""

    id: str
    drawn: int | None = None


class Cause(_Facts):
    """Rows that cause a warning, the first of them, and what they are."""

    words: str
    rows: list[CauseRow]


class Check(_Facts):
    """One question that a run answers of itself.

    Attributes:
        title: what was looked at.
        status: ``good``; ``look``, which wants a person; ``open``, where nothing is known.
        words: what was found.
        remedies: what to do, none where all is well.
        clusters: whose rows cause it.
        causes: rows that do, where it is single ones.
    """

    title: str
    status: Literal["good", "look", "open"]
    words: str
    remedies: list[str] = Field(default_factory=list)
    clusters: list[int] = Field(default_factory=list)
    causes: list[Cause] = Field(default_factory=list)


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
        peak_rss_bytes: highest resident memory of all processes together.
        root: where the run lies, a path or URI.
        fingerprint: of its last stage.
        checks: the verdict, one question after the other.
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
    root: str
    fingerprint: str
    rows: RowSample
    row_pictures: Pictures | None = None
    exemplars: ExemplarFacts | None = None
    exemplar_pictures: Pictures | None = None
    tree: TreeFacts | None = None
    candidates: list[CandidateFacts] = Field(default_factory=list)
    confusion: Confusion | None = None
    certificate: CertificateFacts | None = None
    edges: EdgeFacts | None = None
    taught: TaughtFacts | None = None
    evaluation: Scores | None = None
    checks: list[Check] = Field(default_factory=list)
