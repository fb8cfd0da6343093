"""What the user sees: errors and progress on stderr, results on stdout, one JSON object where asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from distspectral.storage.artifact.manifest import Manifest

SHOWN_ITEMS = 12
LOG_EVERY_S = 10.0
"""Between two lines of progress, where there is no terminal to draw a bar on."""
PAST_TENSE = {
    "pack": "packed",
    "autoencoder": "trained",
    "codes": "encoded",
    "neighbors": "searched neighbours",
    "graph": "weighed edges",
    "siamese": "trained",
    "features": "encoded",
    "reweight": "weighed edges anew",
    "siamese_neighbors": "searched neighbours anew",
    "siamese_graph": "weighed edges anew",
    "train": "trained",
    "calibrate": "calibrated",
    "cluster": "clustered",
    "embed": "embedded",
    "encode": "embedded",
    "evaluate": "evaluated",
}


def _shown(stage: str) -> str:
    return f"{stage.replace('_', ' '):<17}"


def print_error(message: str) -> None:
    """Print ``error: message`` on stderr, whatever characters the message holds."""
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    Console(highlight=False).print(table)


def print_note(message: str) -> None:
    """Print a line on stdout as it is, at once."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


class StageProgress:
    """An observer of the pipeline: one line per stage on stderr, and a bar while a stage works.

    Args:
        quiet: say nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, stage: str) -> None:
        """Name the stage, so that a bar below it is understood."""
        self._tasks[stage] = self._bar.add_task(f"[bold]{stage}", total=None)

    def skipped(self, stage: str) -> None:
        """Say that the stage has nothing to do."""
        self._console.print(f"[dim]{_shown(stage)} up to date[/]")

    def finished(self, stage: str, seconds: float) -> None:
        """Say what the stage took and take its bars away."""
        for task in self._tasks.values():
            self._bar.remove_task(task)
        self._tasks.clear()
        self._console.print(f"[green]{_shown(stage)}[/] {PAST_TENSE[stage]} in {seconds:.1f} s")

    def progress(self, description: str, done: int, total: int) -> None:
        """Move the bar of what is being done; in a log, say so now and then."""
        if not self._console.is_terminal and time.monotonic() - self._last_line > LOG_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(f"  {description} {done:,}/{total:,}")
        if description not in self._tasks:
            self._tasks[description] = self._bar.add_task(description, total=total)
        self._bar.update(self._tasks[description], completed=done, total=total)

    def window(self, record: dict[str, Any]) -> None:
        """Say how training goes: beside the bar on a terminal, as a line in a log."""
        ritz_sum = f"  Ritz sum {record['ritz_sum']:.5f}" if "ritz_sum" in record else ""
        rate, unit = next((v, k.partition("_")[0]) for k, v in record.items() if k.endswith("_per_second"))
        text = f"step {record['step']:,}  loss {record['loss']:.4f}{ritz_sum}  {rate:,.0f} {unit}/s"
        if self._console.is_terminal:
            self._bar.update(self._tasks["training"], description=f"training  {text}")
        else:
            self._console.print(f"  {text}")


def fact_table(title: str, facts: Iterable[tuple[str, str]] = ()) -> Table:
    """Return a table of names and values, to which rows may be added."""
    table = Table(title=escape(title), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table


def results_table(metrics: dict[str, Any]) -> Table:
    """Return a run's metrics as a table for people."""
    table = fact_table(f"Run {metrics['name']}")
    table.add_row("rows x features", f"{metrics['n_rows']:,} x {metrics['dim']:,}")
    if left_out := metrics.get("quarantine"):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out["reasons"].items())
        table.add_row("rows in quarantine", f"{left_out['n_rows']:,}" + (f" ({reasons})" if reasons else ""))
    for stage, seconds in metrics["seconds"].items():
        table.add_row(f"{stage} seconds", f"{seconds:.1f}")
    table.add_row("peak memory", f"{metrics['peak_rss_bytes'] / 2**20:,.0f} MiB")
    train = metrics["train"]
    rate, unit = next((v, k.partition("_")[0]) for k, v in train.items() if k.endswith("_per_second"))
    table.add_row("training", f"{train['steps']:,} steps, {rate:,.0f} {unit}/s, {train['stopped_because']}")
    if "calibrate" in metrics:
        _add_spectral_rows(table, metrics)
    else:
        table.add_row("classes", f"{train['n_train_classes']:,} learned from, {train['n_classes']:,} in all")
        table.add_row("loss", f"{train['loss']:.3f} of {train['classes_per_step']:.0f} classes a step")
    if scores := metrics.get("retrieval"):
        add_retrieval_rows(table, scores)
    return table


def _add_spectral_rows(table: Table, metrics: dict[str, Any]) -> None:
    if learned := metrics.get("represent"):
        kept = f"{learned['explained_variance']:.1%} of the variance of rows it never saw"
        table.add_row("autoencoder", f"{learned['steps']:,} steps; codes keep {kept}")
    if pairs := metrics.get("siamese"):
        distances = f"neighbours {pairs['neighbor_distance']:.2f} apart, others {pairs['stranger_distance']:.2f}"
        table.add_row("Siamese network", f"{pairs['steps']:,} steps; {distances}")
    table.add_row("network sees", " and ".join(metrics["calibrate"]["inputs"]))
    graph = metrics["graph"]
    share = graph["largest_component_share"]
    table.add_row("graph", f"k = {graph['k']}, {graph['components']} components, largest {share:.1%} of the rows")
    kept = metrics["calibrate"]["n_components"]
    table.add_row("Ritz values", " ".join(f"{value:.4f}" for value in metrics["calibrate"]["ritz_values"][:kept]))
    table.add_row("clusters", str(metrics["cluster"]["n_clusters"]))
    if scores := metrics.get("evaluate"):
        table.add_row("ACC / NMI / ARI", " / ".join(f"{scores[name]:.3f}" for name in ("acc", "nmi", "ari")))


def add_retrieval_rows(table: Table, scores: dict[str, Any]) -> None:
    """Add the scores of unseen classes to a table."""
    recall = scores["recall_at"]
    table.add_row(f"Recall@{', '.join(recall)}", " / ".join(f"{value:.4f}" for value in recall.values()))
    table.add_row("NMI, MAP@R", f"{scores['nmi']:.4f}, {scores['map_at_r']:.4f}")


def manifest_table(manifest: Manifest, uri: str | None = None) -> Table:
    """Return a manifest as a table for people."""
    table = fact_table(uri or manifest.stage)
    table.add_row("stage", manifest.stage)
    table.add_row("fingerprint", manifest.fingerprint)
    if manifest.shards:
        size = sum(shard.n_bytes for shard in manifest.shards)
        table.add_row("shards", f"{len(manifest.shards):,}, {manifest.n_rows:,} rows, {size / 2**20:,.1f} MiB")
    for group in (manifest.properties, manifest.metrics):
        for key, value in group.items():
            table.add_row(key, escape(_short(value)))
    return table


def _short(value: Any) -> str:
    """Return a value in one line: long lists by their beginning, nested ones by their keys."""
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list):
        shown = ", ".join(_short(item) for item in value[:SHOWN_ITEMS])
        return f"{shown}, ... ({len(value):,} in all)" if len(value) > SHOWN_ITEMS else shown
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    return str(value)
