"""What to do with a finished run: commands with its own paths, and how to open what it wrote."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from distspectral.report.data import ReportData

DRAWN = 1000
"""Rows that a sample is proposed to have, half of them all where they are fewer than twice as many."""


class Step(NamedTuple):
    """What a person may want, and the command for it."""

    wish: str
    command: str


class File(NamedTuple):
    """Something that the run wrote: where, and what it holds."""

    path: str
    holds: str


def steps(data: ReportData) -> list[Step]:
    """Return commands for a spectral run."""
    run, n_clusters, n_rows = shlex.quote(data.root), _another_cut(data), min(DRAWN, data.n_rows // 2)
    new = shlex.quote(f"{data.root}-new")
    walk = [Step("Walk through all rows of the map, by level of detail", f"distspectral tiles {run}")]
    cut = [
        Step(
            "Cut the tree elsewhere: more or fewer clusters within seconds, nothing is trained",
            f"distspectral recut {run} --n-clusters {n_clusters}",
        )
    ]
    drawn = [Step("Draw rows evenly over the tree, say to label them", f"distspectral sample {run} --rows {n_rows}")]
    return [
        *(cut if n_clusters else []),
        Step("Embed and cluster rows that came later", f"distspectral embed {run} NEW.parquet --output {new}"),
        Step("Compare the clusters with labels that lie elsewhere", f"distspectral evaluate {run} --labels LABELS.csv"),
        *(drawn if n_rows else []),
        Step("Find near-duplicates", f"distspectral dedup {run}"),
        *(walk if data.rows.place == "map" else []),
        Step("Take the model elsewhere, as torch.export and ONNX programs", f"distspectral export {run}"),
        Step("Answer rows by HTTP", f"distspectral serve {run}"),
        Step("Save the pictures of this page for a paper, into figures/", f"distspectral report {run} --figures"),
    ]


def _another_cut(data: ReportData) -> int | None:
    """Return a number of clusters into which the tree can be cut beside the run's own, None where there is none."""
    own = data.clusters.n_clusters
    most = own if data.tree is None else (len(data.tree.nodes) + 1) // 2
    wanted = [*(one.n_clusters for one in data.candidates[1:]), min(2 * own, most), own // 2]
    return next((number for number in wanted if number != own and 1 < number <= most), None)


def metric_steps(root: str) -> list[Step]:
    """Return commands for a run of objective dscl."""
    run, new = shlex.quote(root), shlex.quote(f"{root}-new")
    return [
        Step("Embed rows that came later", f"distspectral embed {run} NEW.parquet --output {new}"),
        Step("Judge the metric anew", f"distspectral evaluate {run} --retrieval"),
        Step("Take the model elsewhere, as torch.export and ONNX programs", f"distspectral export {run}"),
        Step("Answer rows by HTTP", f"distspectral serve {run}"),
    ]


def files(data: ReportData) -> list[File]:
    """Return what lies where."""
    columns = "id, coordinates, cluster, distance to the centroid, margin, leaf of the tree"
    found = [
        File(f"{data.root}/output/*.parquet", f"a row for each of yours, in order: {columns}, carried columns"),
        File(f"{data.root}/exemplars/exemplars.parquet", "the most central and the border rows of each cluster"),
        File(f"{data.root}/tree/nodes.parquet", "the tree: children, rows, height, conductance of each node"),
        File(f"{data.root}/metrics.json", "every number of this page"),
        File(f"{data.root}/config.yaml", "every setting, resolved"),
        File(f"{data.root}/model", "the network and its model card"),
    ]
    return found if data.exemplars is not None else [file for file in found if "exemplars" not in file.path]


def readers(data: ReportData) -> list[Step]:
    """Return lines that open the output."""
    folder, pattern = f"{data.root}/output", f"{data.root}/output/*.parquet"
    quoted = pattern.replace("'", "''")
    return [
        Step("distspectral", f"from distspectral import Run\nrows = Run({data.root!r}).to_pandas()"),
        Step("pandas", f"import pandas\nrows = pandas.read_parquet({folder!r})"),
        Step("Polars", f"import polars\nrows = polars.scan_parquet({pattern!r})"),
        Step("DuckDB", f"SELECT cluster, count(*) FROM '{quoted}' GROUP BY cluster"),
    ]
