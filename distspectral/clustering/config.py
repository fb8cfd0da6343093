"""How rows are grouped: the section ``cluster`` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from distspectral.frozen import FrozenModel

MICRO_CLUSTERS = 20
"""Micro-clusters, or leaves, for each cluster, if the rows allow."""
MOST_MICRO_CLUSTERS = 4_096
"""Affinities between them are then 128 MiB and merged within two seconds."""
ROWS_PER_LEAF = 50
"""Of the whole data on average, where that makes more leaves than :data:`MICRO_CLUSTERS` for each cluster: leaves of
fewer rows say little of their own, and their number stops at :data:`MOST_MICRO_CLUSTERS`."""


class ClusterConfig(FrozenModel):
    """How rows are grouped (YAML section ``cluster``)."""

    n_clusters: PositiveInt | Literal["auto"] = Field(
        "auto", description="auto = the first of ranked candidates, by what merging micro-clusters costs"
    )
    diffusion_time: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="t: function e is scaled by (1 - lambda_e)^t; 0 = leave as they are; auto = the t at which the "
        "first function beyond the number of clusters counts half; functions that live on a few rows are not counted",
    )
    normalize_rows: bool | Literal["auto"] = Field(
        "auto",
        description="scale each row to length 1 first (Ng, Jordan, Weiss); auto = yes, unless the clusters without it "
        "cut far less of the graph and each has a tenth of an average one's rows",
    )
    method: Literal["auto", "k_means"] = Field(
        "auto",
        description="auto = k-means, or micro-clusters merged by modularity where these have more of it and cut no "
        "more of the graph, and a split exchanged for a merger where that cuts less; k_means = as in the paper",
    )
    n_leaves: PositiveInt | Literal["auto"] = Field(
        "auto",
        description=f"of the tree; auto = {MICRO_CLUSTERS} for each cluster, or one for {ROWS_PER_LEAF} rows if that "
        f"is more, and {MOST_MICRO_CLUSTERS:,} at most; a number beyond that asks for fine leaves, told by the edges "
        "alone, of the rows trained on",
    )
    sample_rows: PositiveInt = Field(200_000, description="rows that k-means sees; all rows are then assigned")
    restarts: PositiveInt = Field(10, description="k-means runs; the one with the lowest inertia is kept")
    iterations: PositiveInt = Field(50, description="of each k-means run")
