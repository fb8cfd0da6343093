"""Whole runs that take a second: blobs as shards and a YAML beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from distspectral.datasets import write_vectors
from tests.datasets import as_lists, blobs, drowned

FOLDERS = {
    "pack": "vectors",
    "neighbors": "neighbors",
    "graph": "graph",
    "train": "training",
    "polish": "polished",
    "distill": "distilled",
    "calibrate": "model",
    "cluster": "clusters",
    "tree": "tree",
    "map": "map",
    "embed": "output",
    "exemplars": "exemplars",
}
"""Of a run on its rows by Euclidean weights, as of :func:`write_run`: each stage, in order, and where it writes."""
CHAIN = tuple(FOLDERS)
AFTER_GRAPH = CHAIN[CHAIN.index("train") :]

N_ROWS = 120
DIM = 5
BRIEF = {"hidden": [16], "n_components": 3, "batch_size": 64, "max_steps": 40, "window_steps": 20, "device": "cpu"}
"""A training of an encoder that takes a moment."""
LEARNED = {"representation": "code", "autoencoder": BRIEF, "affinity": {"space": "siamese"}, "siamese": BRIEF}
"""Sections of a run in codes with Siamese affinities."""


def write_run(folder: Path, sizes: tuple[int, ...] = (50, 30, 40), **sections: Any) -> Path:
    """Write shards, labels included, and ``run.yaml``; return the config's path. Artifacts go to folder/root."""
    vectors, labels = blobs(N_ROWS, DIM)
    write_vectors(str(folder / "data"), vectors, labels=labels, sizes=sizes)
    values: dict[str, Any] = {
        "name": "tiny",
        "root": str(folder / "root"),
        "data": {"path": str(folder / "data"), "id_column": "id", "label_column": "label"},
        "representation": "input",
        "graph": {"n_neighbors": 8},
        "affinity": {"space": "euclidean"},
        "network": {"hidden": [16]},
        "spectral": {"n_components": 4, "oversampling": 2},
        "train": {"batch_size": 64, "max_steps": 40, "window_steps": 20, "warmup_steps": 5, "device": "cpu"},
        "distill": {"batch_size": 64, "max_steps": 40, "window_steps": 20, "warmup_steps": 5, "device": "cpu"},
        "cluster": {"n_clusters": 3, "restarts": 2, "iterations": 10},
        "map": {"hidden": [16], "batch_size": 64, "max_steps": 40, "window_steps": 20, "device": "cpu"},
        "ray": {"workers": 1},
    }
    for name, section in sections.items():
        values[name] = section
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def write_metric_run(folder: Path, **sections: Any) -> Path:
    """Write shards of twenty classes, half of them to learn from, and ``run.yaml`` of objective dscl.

    Classes differ in the first six of twelve features; the others are noise, three times as large.
    """
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(20), 15))
    signal = 2 * rng.standard_normal((20, 6))[labels] + rng.standard_normal((300, 6))
    vectors = np.hstack([signal, 3 * rng.standard_normal((300, 6))]).astype(np.float32)
    write_vectors(str(folder / "data"), vectors, labels=labels, sizes=(120, 80, 100))
    values: dict[str, Any] = {
        "name": "metric",
        "root": str(folder / "root"),
        "objective": "dscl",
        "data": {"path": str(folder / "data"), "id_column": "id", "label_column": "label"},
        "network": {"hidden": [32]},
        "dscl": {"n_components": 6, "rows_per_class": 5},
        "train": {"batch_size": 50, "max_steps": 40, "window_steps": 20, "warmup_steps": 5, "device": "cpu"},
        "ray": {"workers": 1},
    }
    values |= sections
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def copied_run(config: Path, folder: Path) -> Path:
    """Copy the artifacts of a run, to be spoilt; return the copy's config, which has the data and so the fingerprints.

    Args:
        config: of the run, whose root is beside it.
        folder: for the copy, likewise.
    """
    shutil.copytree(config.parent / "root", folder / "root")
    path = folder / "run.yaml"
    path.write_text(config.read_text().replace(f"root: {config.parent}/root", f"root: {folder}/root"))
    return path


def moved(folder: Path, offset: float) -> NDArray[np.float64]:
    """Add to every value of the Parquet shards in a folder, in float64, and return the rows in order."""
    rows = []
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        rows.append(np.stack(table["vector"].to_numpy()).astype(np.float64) + offset)
        pq.write_table(table.set_column(table.schema.get_field_index("vector"), "vector", as_lists(rows[-1])), path)
    return np.concatenate(rows)


def write_drowned_run(folder: Path) -> Path:
    """Write rows that noise drowns, and the config of a short run on them by Euclidean distance; return its path."""
    write_vectors(str(folder / "data"), drowned(800, 600))
    path = folder / "run.yaml"
    brief = {"max_steps": 4, "window_steps": 2, "warmup_steps": 1}
    values = {
        "name": "drowned",
        "root": str(folder / "root"),
        "data": {"path": str(folder / "data")},
        "graph": {"metric": "l2"},
        "affinity": {"space": "euclidean"},
        "network": {"hidden": [8]},
        "cluster": {"n_clusters": 5},
        "train": brief,
        "distill": brief,
        "map": {"enabled": False},
    }
    path.write_text(yaml.safe_dump(values))
    return path
