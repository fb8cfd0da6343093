"""Rates that are easy to reckon with: a microsecond here, two there."""

from __future__ import annotations

from typing import Any

import yaml

from distspectral.config.load import parse_config
from distspectral.config.run import RunConfig
from distspectral.planning.machines import Cluster, Node
from distspectral.planning.rates import Rates, SearchRate, StepRate

STAGES = ("pack", "codes", "neighbors", "graph", "features", "reweight", "embed", "encode")
SEARCH = SearchRate(
    dim=10,
    truth_us=2,
    route=1,
    solve=1,
    merge=1,
    pair_us=0.01,
    copies=2,
    copies_per_decade=0.5,
    cells=40,
    solver="exact",
    fixed_s=3,
)


def config(**sections: Any) -> RunConfig:
    values = {"name": "tiny", "data": {"path": "/nowhere"}, "cluster": {"n_clusters": 10}, **sections}
    return parse_config(yaml.safe_dump(values), "test")


def rates(**changes: Any) -> Rates:
    core = ("read", "pack", "codes", "encode", "features", "weigh", "reweight", "functions", "edges", "scan", "embed")
    values: dict[str, Any] = {
        "dim": 96,
        "sample_rows": 40_000,
        "source_bytes": 400,
        "core_us": dict.fromkeys(core, 4.0) | {"evaluate": 8.0},
        "forward_us": {"codes": 3.0, "features": 3.0, "calibrate": 3.0, "embed": 3.0, "encode": 3.0},
        "driver_us": {"components": 0.6, "degrees": 0.4, "scales": 0.5, "cluster": 20.0},
        "steps": {stage: StepRate(fixed_s=0.001, row_s=1e-5) for stage in ("autoencoder", "siamese", "train")},
        "searches": {"neighbors": SEARCH, "siamese_neighbors": SEARCH},
        "fixed_s": {"pack": 0.5},
        "kept_bytes": dict.fromkeys(STAGES, 100.0),
        "disk_write": 1e9,
        "disk_read": 2e9,
        "base_bytes": 4e8,
        "seconds": 30.0,
    }
    return Rates(**(values | changes))


def cluster(cores: int = 4, workers: int = 1, nodes: int = 1, uses_ray: bool = False) -> Cluster:
    node = Node(cores, 64e9, 2e9, 1e9, 1e9)
    return Cluster("constructed", "cpu", nodes, workers, node, "constructed", uses_ray=uses_ray)
