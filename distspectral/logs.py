"""The log as JSON, one object a line, of the driver and of every worker, for machines that collect logs.

Each line says which run, stage and rank it is of. What a process works on is kept here, for its one root logger.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from distspectral.errors import ConfigError
from distspectral.secrets import redacted_values

LOGGER = logging.getLogger("distspectral")
STDERR = "-"

CONTEXT: dict[str, Any] = {"rank": "driver"}
"""What this process works on."""


class JsonLines(logging.Formatter):
    """Formats a record with its time, level, place and message, what this process works on, and the event's numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, without secrets."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **CONTEXT,
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(to_jsonable_python(redacted_values(line), inf_nan_mode="null", fallback=str))


def write_log(place: str) -> None:
    """Write what distspectral logs in this process, and tell workers to do so.

    Args:
        place: a file, which is appended to and leaves warnings on the terminal too; ``-`` for stderr.

    Raises:
        ConfigError: the file cannot be opened.
    """
    if place == STDERR:
        _add(logging.StreamHandler())
        return
    try:
        _add(logging.FileHandler(Path(place), encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--log {place}: cannot be written ({error}); name another file") from error
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    LOGGER.addHandler(terminal)


def _add(handler: logging.Handler) -> None:
    handler.setFormatter(JsonLines())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)


def is_written() -> bool:
    """Whether this process writes the log."""
    return any(isinstance(handler.formatter, JsonLines) for handler in LOGGER.handlers)


def add_context(**facts: Any) -> None:
    """Add to what every following line says."""
    CONTEXT.update(facts)


def context() -> dict[str, Any] | None:
    """Return what a worker's lines are to say beside its rank; None where no log is written."""
    return dict(CONTEXT) if is_written() else None


def adopt_context(context: dict[str, Any] | None, rank: int | str) -> None:
    """Write this worker's log to its stderr, which Ray keeps in a file of the worker.

    Args:
        context: of :func:`context` in the driver; None changes nothing.
        rank: of a training worker; ``task`` or ``actor`` for the others.
    """
    if context is None:
        return
    if not is_written():
        _add(logging.StreamHandler(sys.stderr))
    CONTEXT.clear()
    add_context(**context | {"rank": rank})


@contextlib.contextmanager
def level(logger: str, least: int) -> Iterator[None]:
    """Let only records of at least a level through a logger, of a library for example, while the block lasts."""
    before = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(least)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(before)


def event(what: str, **facts: Any) -> None:
    """Log an event with its numbers."""
    LOGGER.info(what, extra={"facts": facts})


@contextlib.contextmanager
def timed(what: str, **facts: Any) -> Iterator[None]:
    """Log the end of the block with its seconds; an error, with its message, before it goes on."""
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        if is_written():  # else whoever catches it says so
            LOGGER.error(f"{what} failed", extra={"facts": facts | {"error": f"{type(error).__name__}: {error}"}})
        raise
    event(f"{what} finished", seconds=round(time.perf_counter() - began, 3), **facts)
