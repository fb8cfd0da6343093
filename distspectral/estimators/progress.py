"""What an estimator shows while it trains: a bar where somebody watches, a line per window if asked, else nothing."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import threading
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.run_log import OnWindow

Verbose = bool | int | Literal["auto"]


def fit_shown(
    trainer: Trainer[Any, Any], trained: str, verbose: Verbose, on_window: OnWindow | None = None
) -> list[dict[str, Any]]:
    """Train to the end of the schedule, and return the metrics of its windows.

    Args:
        trainer: not begun.
        trained: what is trained, as runs call the stage.
        verbose: ``auto``: a bar where :func:`is_watched`; else whether to print a line per window.
        on_window: hears of each window.

    Raises:
        NonFiniteStepError, RankDeficientError: training cannot go on.
    """
    if not isinstance(verbose, str):
        windows: _Windows = _Lines(trained, on_window) if verbose else _Windows(trained, on_window)
        trainer.fit(windows)
    elif is_watched():
        with _bar() as bar:
            windows = _Bar(trained, on_window, trainer, bar)
            trainer.fit(windows)
    else:
        windows = _Windows(trained, on_window)
        trainer.fit(windows)
    return windows.history


def is_watched() -> bool:
    """Return whether somebody watches: in a terminal, or in a notebook that has ``ipywidgets``, which bars need there.

    Processes and threads that search over parameters, whose bars would write over one another, are not watched.
    """
    if multiprocessing.current_process().name != "MainProcess":
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    if Console(stderr=True).is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return sys.stderr.isatty()


def _bar() -> Progress:
    """Return a bar on stderr that goes when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[found]}"),
        console=Console(stderr=True),
        transient=True,
    )


def _in_words(record: dict[str, Any]) -> str:
    ritz_sum = f"  Ritz sum {record['ritz_sum']:.5f}" if "ritz_sum" in record else ""
    return f"loss {record['loss']:.4f}{ritz_sum}"


class _Windows(WindowRecorder):
    """Keeps the history and tells a listener."""

    def __init__(self, trained: str, on_window: OnWindow | None) -> None:
        super().__init__()
        self.trained, self.on_window = trained, on_window

    def window(self, record: dict[str, Any]) -> None:
        """Keep and tell one window."""
        super().window(record)
        if self.on_window is not None:
            self.on_window({"training": self.trained, **record})


class _Lines(_Windows):
    """Prints a line per window, too."""

    def window(self, record: dict[str, Any]) -> None:
        """Keep, tell and print one window."""
        super().window(record)
        print(f"{self.trained} step {record['step']:>6}  {_in_words(record)}")


class _Bar(_Windows):
    """Moves a bar, too; a training that ends early on a plateau has fewer steps from there on."""

    def __init__(self, trained: str, on_window: OnWindow | None, trainer: Trainer[Any, Any], bar: Progress) -> None:
        super().__init__(trained, on_window)
        self._schedule, self._bar = trainer.schedule, bar
        self._task = bar.add_task(trained, total=trainer.schedule.last_step, found="")

    def window(self, record: dict[str, Any]) -> None:
        """Keep, tell and show one window."""
        super().window(record)
        self._bar.update(self._task, completed=record["step"], total=self._schedule.last_step, found=_in_words(record))
