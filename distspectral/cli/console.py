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
    from distspectral.stages.stage import Stage
    from distspectral.storage.artifact.manifest import Manifest

SHOWN_ITEMS = 12
LOG_EVERY_S = 10.0
"""Between two lines of progress, where there is no terminal to draw a bar on."""


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

    @staticmethod
    def _done(name: str) -> str:
        """Return what a stage has done, in the past tense."""
        from distspectral.stages import STAGES

        return next(stages[name].done for stages in STAGES.values() if name in stages)

    def started(self, stage: str) -> None:
        """Name the stage, so that a bar below it is understood."""
        self._tasks[stage] = self._bar.add_task(f"[bold]{stage}", total=None)

    def skipped(self, stage: str) -> None:
        """Say that the stage has nothing to do."""
        self._console.print(f"[dim]{stage:<17} up to date[/]")

    def finished(self, stage: str, seconds: float) -> None:
        """Say what the stage took and take its bars away."""
        for task in self._tasks.values():
            self._bar.remove_task(task)
        self._tasks.clear()
        self._console.print(f"[green]{stage:<17}[/] {self._done(stage)} in {seconds:.1f} s")

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


def results_table(metrics: dict[str, Any], stages: Iterable[Stage]) -> Table:
    """Return a run's metrics as a table for people, the lines of its stages included."""
    table = fact_table(f"Run {metrics['name']}")
    table.add_row("rows x features", f"{metrics['n_rows']:,} x {metrics['dim']:,}")
    for stage, seconds in metrics["seconds"].items():
        table.add_row(f"{stage} seconds", f"{seconds:.1f}")
    table.add_row("peak memory", f"{metrics['peak_rss_bytes'] / 2**20:,.0f} MiB")
    for stage in stages:
        if facts := metrics.get(stage.name):
            for heading, text in stage.lines(facts).items():
                table.add_row(heading, text)
    return table


def print_manifest(manifest: Manifest, as_json: bool) -> None:
    """Print what a stage made: a table for people, or one JSON object."""
    if as_json:
        print_json(manifest.model_dump())
    else:
        print_table(manifest_table(manifest))


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
