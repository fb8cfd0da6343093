"""``distspectral run``: the whole pipeline; what is current is skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from distspectral.cli.console import StageProgress, print_json, print_note, print_table, record_table, results_table
from distspectral.cli.options import AsJson, ConfigPath, Local, Overrides, Quiet, engine_of, load
from distspectral.report.formats import percent
from distspectral.text import printable

if TYPE_CHECKING:
    from distspectral.config import RunConfig


SHOWN_CLUSTERS = 15
"""Of more, the terminal shows the largest; the report has them all."""
QUALITY = ("rows", "silhouette", "conductance", "stability", "label")
"""What the terminal shows of each, as far as it is known: no more than 80 columns hold. The report has the rest."""
LONGEST_LABEL = 24


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    config: ConfigPath,
    overrides: Overrides = None,
    local: Local = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Bring every stage up to date, from the packed rows to the embedded ones, and write the report."""
    loaded = load(config, overrides)
    show(loaded, run_config(loaded, local, quiet), as_json)


def run_config(config: RunConfig, local: bool, quiet: bool) -> dict[str, Any]:
    """Run a config with progress on stderr and return its metrics."""
    from distspectral.orchestration.pipeline import run as run_pipeline

    with StageProgress(quiet) as progress:
        return run_pipeline(config, engine_of(config, local), progress)


def by_cluster(columns: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Return facts of clusters, lists by what is told, as records by cluster: all by number, or the largest."""
    shown = list(range(len(columns["rows"])))
    if len(shown) > SHOWN_CLUSTERS:
        shown = sorted(shown, key=lambda cluster: -columns["rows"][cluster])[:SHOWN_CLUSTERS]
    told = [name for name in QUALITY if name in columns]
    found = {f"cluster {cluster}": {name: columns[name][cluster] for name in told} for cluster in shown}
    if "label" in columns:
        for cluster, one in zip(shown, found.values(), strict=True):
            one["label"] = f"{printable(one['label'], LONGEST_LABEL)} {percent(columns['label_share'][cluster])}"
    return found


def clusters_title(n_clusters: int) -> str:
    """Return the heading of that table."""
    return "Clusters" if n_clusters <= SHOWN_CLUSTERS else f"The {SHOWN_CLUSTERS} largest of {n_clusters:,} clusters"


def show(config: RunConfig, metrics: dict[str, Any], as_json: bool) -> None:
    """Print a run's metrics, and for people where its report is."""
    from distspectral.graph.trial import Trial
    from distspectral.stages import stages_of
    from distspectral.stages.finished_run import PAGE, of_earlier_trees
    from distspectral.storage.artifact.directory import Artifact
    from distspectral.storage.filesystems import join

    if as_json:
        print_json(metrics)
        return
    trial = Trial.of(metrics["trial"]) if "trial" in metrics else None
    recipe = config.recipe(metrics["dim"], metrics["n_rows"]).knowing(trial=trial)
    print_table(results_table(metrics, stages_of(recipe)))
    labels = metrics.get("embed", {}).get("labels", {})
    if clusters := metrics.get("tree", {}).get("clusters"):
        print_table(record_table(clusters_title(len(clusters["rows"])), by_cluster(clusters | labels)))
    if certificate := metrics.get("calibrate", {}).get("certificate"):
        print_note(f"functions: {certificate['verdict']}, {certificate['words']}")
    if verdict := metrics.get("verdict"):
        print_note(f"verdict: {verdict}")
        for title, words in metrics.get("doubts", {}).items():
            print_note(f"  {title}: {words}")
    for name in of_earlier_trees(Artifact(config.root)):
        print_note(f"{name} was made of an earlier tree of this run; make it anew")
    print_note(f"report: {join(config.root, PAGE)}")
