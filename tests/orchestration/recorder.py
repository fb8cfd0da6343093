"""Runs in one process, with what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distspectral.config import load_config
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.pipeline import run


class Recorder:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.up_to_date: list[str] = []
        self.steps: list[tuple[str, int, int]] = []
        self.ritz_sums: list[float] = []

    def started(self, stage: str) -> None:
        self.worked.append(stage)

    def skipped(self, stage: str) -> None:
        self.up_to_date.append(stage)

    def finished(self, stage: str, seconds: float) -> None:
        assert seconds > 0

    def progress(self, description: str, done: int, total: int) -> None:
        self.steps.append((description, done, total))

    def window(self, record: dict[str, Any]) -> None:
        if "ritz_sum" in record:
            self.ritz_sums.append(record["ritz_sum"])


def run_local(path: Path, *overrides: str) -> tuple[dict[str, Any], Recorder]:
    recorder = Recorder()
    return run(load_config(path, overrides), LocalEngine(), recorder), recorder
