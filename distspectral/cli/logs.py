"""The log as JSON, one object a line, for machines that collect logs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from distspectral.errors import ConfigError


class JsonLines(logging.Formatter):
    """Formats a record with its time, level, place and message, and what was said of run, stage and rank."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "distspectral", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write_log(path: Path) -> None:
    """Append what distspectral logs in this process to a file.

    Raises:
        ConfigError: the file cannot be opened.
    """
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--log {path}: cannot be written ({error}); name another file") from error
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("distspectral")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
