"""Whole runs that take a second: blobs as shards and a YAML beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from distspectral.datasets import write_vectors
from tests.datasets import blobs

N_ROWS = 120
DIM = 5


def write_run(folder: Path, sizes: tuple[int, ...] = (50, 30, 40), **sections: Any) -> Path:
    """Write shards, labels included, and ``run.yaml``; return the config's path. Artifacts go to folder/root."""
    vectors, labels = blobs(N_ROWS, DIM)
    write_vectors(str(folder / "data"), vectors, labels=labels, sizes=sizes)
    values: dict[str, Any] = {
        "name": "tiny",
        "root": str(folder / "root"),
        "data": {"path": str(folder / "data"), "id_column": "id", "label_column": "label"},
        "graph": {"n_neighbors": 8},
        "network": {"hidden": [16]},
        "spectral": {"n_components": 4, "oversampling": 2},
        "train": {"batch_size": 64, "max_steps": 40, "window_steps": 20, "warmup_steps": 5, "device": "cpu"},
        "cluster": {"n_clusters": 3, "restarts": 2, "iterations": 10},
        "ray": {"workers": 1},
    }
    for name, section in sections.items():
        values[name] = section
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
