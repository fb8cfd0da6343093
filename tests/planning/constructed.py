"""Rates that are easy to reckon with: a microsecond here, two there."""

from __future__ import annotations

from typing import Any

import yaml

from distspectral.config.load import parse_config
from distspectral.config.run import RunConfig
from distspectral.costs.machines import Machines, Node
from distspectral.costs.rates import Rates, SearchRate, StepRate

ROWS = ("pack", "codes", "neighbors", "graph", "features", "reweight", "polish", "embed")
LISTS = ("neighbors", "graph", "siamese_neighbors", "siamese_graph", "reweight")
FACTS = {
    "pointing rows": 0.25,
    "following rows": 0.25,
    "contracting edges": 0.5,
    "joining row numbers": 0.02,
    "counting degrees": 0.25,
}
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
)
CORE_US = {
    "pack": {"packing": 4.0},
    "codes": {"encoding": 4.0, "network": 3.0},
    "features": {"encoding": 4.0, "network": 3.0},
    "graph": {"weighing edges": 4.0, "taking scales": 0.5, "joining scales": 0.01, **FACTS},
    "siamese_graph": {"weighing edges": 4.0, "taking scales": 0.5, "joining scales": 0.01, **FACTS},
    "reweight": {"reweighting edges": 4.0, "counting degrees": 0.25},
    "train": {"scan": 4.0},
    "map": {"scan": 4.0},
    "polish": {"encoding": 4.0, "polishing": 4.0, "network": 3.0},
    "calibrate": {"encoding": 4.0, "calibrating": 4.0, "certifying": 4.0, "network": 3.0, "seeking edges": 2.0},
    "embed": {"embedding": 1.0, "encoding": 4.0, "network": 3.0},
    "evaluate": {"evaluating": 8.0},
}


TRAINED = ("autoencoder", "siamese", "train", "distill", "map")


def config(**sections: Any) -> RunConfig:
    values = {"name": "tiny", "data": {"path": "/nowhere"}, "cluster": {"n_clusters": 10}, **sections}
    return parse_config(yaml.safe_dump(values), "test")


def rates(**changes: Any) -> Rates:
    values: dict[str, Any] = {
        "dim": 96,
        "sample_rows": 40_000,
        "source_bytes": 400,
        "read_us": 4.0,
        "core_us": CORE_US,
        "alone_s": {"pack": 0.5, "cluster": 0.8, "neighbors": 3.0, "siamese_neighbors": 3.0},
        "steps": {stage: StepRate(fixed_s=0.001, row_s=1e-5) for stage in TRAINED},
        "searches": {"neighbors": SEARCH, "siamese_neighbors": SEARCH},
        "kept_bytes": dict.fromkeys(ROWS, 100.0),
        "row_numbers": dict.fromkeys(LISTS, 15),
        "disk_write": 1e9,
        "disk_read": 2e9,
        "base_bytes": 4e8,
        "seconds": 30.0,
    }
    return Rates(**(values | changes))


def machines(cores: int = 4, workers: int = 1, nodes: int = 1, uses_ray: bool = False) -> Machines:
    node = Node(cores, 64e9, 2e9, 1e9, 1e9)
    return Machines("constructed", "cpu", nodes, workers, node, "constructed", uses_ray=uses_ray)
