"""``distspectral recut RUN``: the same rows in more or fewer clusters, nothing trained anew."""

from __future__ import annotations

from typing import Annotated

import typer

from distspectral.cli.console import print_json, print_note, print_table, record_table
from distspectral.cli.options import AsJson, RunPath
from distspectral.text import plural

SHOWN_CLUSTERS = 40
"""Of more, the first are shown, which are the largest."""
SHOWN = ("rows", "silhouette", "conductance", "stability", "nearest")
"""What the terminal shows of each: no more than 80 columns hold. The file has the rest."""

NClusters = Annotated[
    int | None, typer.Option("--n-clusters", help="Cut into so many, at most as many as the tree has leaves.")
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Merge all pairs of at least so much affinity, where 1 is what chance gives."),
]
MinRows = Annotated[
    int | None, typer.Option("--min-rows", help="Cut into as many as there can be of so many rows each.")
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Of the folder under RUN/cuts. (default: such as n-clusters-25)", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recut")(recut)


def recut(
    run: RunPath,
    n_clusters: NClusters = None,
    threshold: Threshold = None,
    min_rows: MinRows = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Cut a run's tree of clusters elsewhere: a cluster for each leaf, which the output's column leaf joins to rows."""
    from distspectral.stages.recut import CLUSTERS, Wish
    from distspectral.stages.recut import recut as cut_anew
    from distspectral.storage.artifact.directory import Artifact

    cut = cut_anew(Artifact(run), Wish(n_clusters, threshold, min_rows), name)
    records = cut.table.to_pylist()
    if as_json:
        print_json({"cut": cut.artifact.uri, "clusters": records})
        return
    shown = {
        f"cluster {one['cluster']}": {key: one[key] for key in SHOWN if key in one} for one in records[:SHOWN_CLUSTERS]
    }
    print_table(record_table(f"{plural(len(records), 'cluster')} of {run}", shown))
    if len(records) > len(shown):
        print_note(f"and {len(records) - len(shown):,} more in {cut.artifact.uri}")
    print_note(f"leaf to cluster: {cut.artifact.uri}/{CLUSTERS}")
