"""What the user sees: errors and progress on stderr, results on stdout, one JSON object where asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import to_jsonable_python
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

from distspectral.report.formats import MISSING, duration, n_bytes, percent
from distspectral.secrets import redacted, redacted_values
from distspectral.text import plural

if TYPE_CHECKING:
    from distspectral.mapping import Mapper
    from distspectral.stages.stage import Stage
    from distspectral.storage.artifact.manifest import Manifest

SHOWN_ITEMS = 12
WHOLE_FROM = 10_000
"""Numbers from here on are shown without decimals."""
LOG_EVERY_S = 10.0
"""Between two lines of progress, where there is no terminal to draw a bar on."""

Unit = Callable[[float], str]
UNITS: dict[str, Unit] = {"seconds": duration, "bytes": n_bytes, "share": percent}
"""How a number reads, by the last word of its key."""


def print_error(message: str) -> None:
    """Print ``error: message`` on stderr, whatever characters the message holds, but for secrets."""
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(redacted(message))}", soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    Console(highlight=False).print(table)


def print_note(message: str) -> None:
    """Print a line on stdout as it is, at once."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, without the secrets of a config in it; NaN and infinity are null."""
    plain = to_jsonable_python(redacted_values(value), inf_nan_mode="null", fallback=str)
    sys.stdout.write(json.dumps(plain, indent=2) + "\n")


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
        self._console.print(f"[dim]{stage:<17} up to date[/]")

    def finished(self, stage: str, seconds: float) -> None:
        """Say what the stage took and take its bars away."""
        from distspectral.stages import stage_named

        for task in self._tasks.values():
            self._bar.remove_task(task)
        self._tasks.clear()
        self._console.print(f"[green]{stage:<17}[/] {stage_named(stage).done} in {seconds:.1f} s")

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


def watched(progress: StageProgress, hand_out: Mapper) -> Mapper:
    """Return the mapper, showing how far it is."""

    def mapper(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        for done, result in enumerate(hand_out(function, items, description, on_gpu=on_gpu), 1):
            progress.progress(description, done, len(items))
            yield result

    return mapper


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
        busy = metrics["busy"].get(stage)
        share = "" if busy is None else f", cores {busy['workers']:.0%} busy with its work"
        table.add_row(f"{stage} seconds", f"{seconds:.1f}{share}")
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
        table.add_row("shards", f"{len(manifest.shards):,}, {plural(manifest.n_rows, 'row')}, {size / 2**20:,.1f} MiB")
    for group in (manifest.properties, manifest.metrics):
        for key, value in group.items():
            table.add_row(key, escape(text(value, _unit(key))))
    return table


def print_result(title: str, result: Mapping[str, Any], as_json: bool = False) -> None:
    """Print nested values: their groups of like records as tables, what remains as names and values, or all as JSON."""
    if as_json:
        print_json(result)
        return
    groups = {key: records for key, value in result.items() if (records := _records(value))}
    if facts := [(_words(key), escape(text(value, _unit(key)))) for key, value in result.items() if key not in groups]:
        print_table(fact_table(title, facts))
    for key, records in groups.items():
        print_table(record_table(f"{title}: {_words(key)}", records))


def record_table(title: str, records: Mapping[Any, Mapping[str, Any]]) -> Table:
    """Return records by name as a table whose longer side goes down."""
    cells = {_words(name): _cells(record, _unit(name)) for name, record in records.items()}
    keys = list(dict.fromkeys(key for record in cells.values() for key in record))
    if len(records) <= len(keys):
        cells, keys = {key: {name: one.get(key, "") for name, one in cells.items()} for key in keys}, list(cells)
    table = Table(title=escape(title), title_justify="left")
    for heading in ("", *keys):
        table.add_column(heading, overflow="fold")
    for name, record in cells.items():
        table.add_row(name, *(record.get(key, "") for key in keys))
    return table


def text(value: Any, unit: Unit | None = None) -> str:
    """Return a value in one line: long lists by their beginning, a pair as mean and spread, nested ones by key."""
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {text(inner, _unit(key, unit))}" for key, inner in value.items())
    if isinstance(value, tuple):
        mean, spread = (text(one, unit) for one in value)
        return f"{mean} ({spread})"
    if isinstance(value, list):
        shown = ", ".join(text(item, unit) for item in value[:SHOWN_ITEMS])
        return f"{shown}, ... ({len(value):,} in all)" if len(value) > SHOWN_ITEMS else shown or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return MISSING if value is None else str(value)
    if unit is not None:
        return unit(value)
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < WHOLE_FROM else f"{value:,.0f}"


def _records(value: Any) -> dict[Any, dict[str, Any]]:
    """Return a dict of dicts as it is, and a list of dicts by their names or numbers; nothing of other values."""
    if isinstance(value, list):
        value = {one.get("name", number) if isinstance(one, dict) else number: one for number, one in enumerate(value)}
    is_group = isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())
    return value if is_group else {}


def _cells(record: Mapping[str, Any], unit: Unit | None) -> dict[str, str]:
    """Return a record's values as text, those of dicts in it under the names of both."""
    cells: dict[str, str] = {}
    for key, value in record.items():
        own = _unit(key, unit)
        if isinstance(value, dict):
            cells |= {f"{_words(key)}, {name}": shown for name, shown in _cells(value, own).items()}
        elif key != "name":
            cells[_words(key)] = escape(text(value, own))
    return cells


def _words(key: Any) -> str:
    return f"{key:,}" if isinstance(key, int) else escape(str(key).replace("_", " "))


def _unit(key: Any, default: Unit | None = None) -> Unit | None:
    """Return how numbers under a key read: as its last word says, as around it where that says nothing."""
    words = str(key).split("_")
    if "per" in words:
        return None
    return UNITS.get(words[-1], default)
