"""``distspectral dedup RUN``: near-duplicates, by the neighbour lists that a finished run has already."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, cast

import typer

from distspectral.cli.console import (
    StageProgress,
    fact_table,
    print_json,
    print_note,
    print_table,
    record_table,
    watched,
)
from distspectral.cli.options import AsJson, Local, Quiet, RunPath, engine_of_run

if TYPE_CHECKING:
    from distspectral.curation.lists import RunLists
    from distspectral.graph.near import Measure

Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="T",
        help="Largest distance of a near-duplicate. (default: write nothing, show what thresholds would drop)",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="l2: Euclidean distance, in the unit of the source; cosine: 1 - cos; centered_cosine: the same around the "
        "mean of all rows. (default: that of the run's search)",
        show_default=False,
    ),
]
OutputPath = Annotated[
    str | None, typer.Option("--out", metavar="DIR", help="Where the shards go. (default: RUN/dedup)")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dedup")(dedup)


def dedup(
    run: RunPath,
    threshold: Threshold = None,
    metric: Metric = None,
    out: OutputPath = None,
    local: Local = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find chains of rows no farther apart than a threshold, and keep the first row of each.

    Without --threshold nothing is written; what some thresholds would drop is shown. Distances are those between the
    rows as they were given, by the metric of the run's search. Writes Parquet shards with id, group and keep to
    RUN/dedup. Run again, it goes on where it was stopped. Shards are handed to the cluster that the run's config names.
    """
    from distspectral.curation.duplicates import dedup as find_duplicates
    from distspectral.curation.duplicates import dedup_output
    from distspectral.curation.lists import RunLists
    from distspectral.graph.near import NAMES
    from distspectral.stages.neighbors import NEIGHBORS
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.artifact.holding import Hold

    root = Artifact(run)
    lists = RunLists.of(root, cast("Measure | None", metric))
    if threshold is None:
        _show_survey(run, lists, as_json)
        return
    artifact = Artifact(out) if out else root.child("dedup")
    output = dedup_output(lists, threshold, artifact)
    engine = engine_of_run(root, local)
    with Hold(artifact, f"dedup of {root.uri}"), StageProgress(quiet) as progress, contextlib.closing(engine):
        if not artifact.is_current(output.fingerprint):
            engine.start([NEIGHBORS])
        manifest = find_duplicates(lists, threshold, output, watched(progress, engine.mapper(NEIGHBORS)))
    if as_json:
        print_json(manifest.model_dump())
        return
    found = manifest.metrics
    facts = [
        ("near", f"{NAMES[lists.scale.measure]} of at most {threshold:g}"),
        ("rows", f"{manifest.n_rows:,}"),
        ("groups of several rows", f"{found['groups']:,}, the largest of {found['largest_group']:,}"),
        ("rows kept", f"{found['kept_rows']:,}"),
        ("rows dropped", f"{found['dropped_rows']:,} ({found['dropped_share']:.2%})"),
        ("written to", artifact.uri),
    ]
    print_table(fact_table(f"Near-duplicates of {run}", facts))


def _show_survey(run: str, lists: RunLists, as_json: bool) -> None:
    from distspectral.curation.duplicates import survey
    from distspectral.graph.near import NAMES

    records = survey(lists)
    if as_json:
        print_json({"metric": lists.scale.measure, "thresholds": records})
        return
    rows = {
        f"{one['threshold']:.4g}": {
            "rows with a neighbour within": f"{one['near_share']:.2%}",
            "rows dropped": f"{one['dropped_share']:.2%}",
        }
        for one in records
    }
    print_table(record_table(f"Thresholds for {run}", rows))
    print_note(f"Thresholds are of {NAMES[lists.scale.measure]}. Nothing was written; choose one with --threshold.")
