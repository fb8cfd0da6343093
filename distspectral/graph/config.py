"""The graph's two config sections, ``graph`` (who is a neighbour) and ``affinity`` (how much it weighs)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from distspectral.errors import ConfigError
from distspectral.spectral.affinity import AffinityKind

MAX_NEIGHBORS = 1024
"""A GPU search returns at most 2,048 candidates a row; half of them leave room for ties."""


class GraphConfig(BaseModel):
    """The nearest-neighbour search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_neighbors: int = Field(15, ge=1, le=MAX_NEIGHBORS, description="Neighbours of each row, the row itself excluded.")
    block_rows: int | None = Field(
        None, ge=1, description="Query rows of one task, which writes one shard; null: chosen from the vectors' size."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to search: auto takes a GPU if FAISS and the machine have one."
    )


class AffinityConfig(BaseModel):
    """How distances become affinities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AffinityKind = Field(
        "self_tuning",
        description="self_tuning: exp(-d^2 / (s_i s_j)), s the distance to the scale neighbour; gaussian: one s, its "
        "median over all rows; fuzzy: UMAP's membership; uniform: 1.",
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
    if affinity.kind in ("self_tuning", "gaussian") and affinity.scale_neighbor > n_neighbors:
        raise ConfigError(
            f"affinity.scale_neighbor: is {affinity.scale_neighbor}, but each row has only {n_neighbors} neighbours "
            "(graph.n_neighbors); lower the one or raise the other"
        )
