"""Who hears how a run goes on."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """Hears how a run goes on; ``progress`` may be called from another thread."""

    def started(self, stage: str) -> None:
        """A stage begins to work."""

    def skipped(self, stage: str) -> None:
        """A stage is up to date."""

    def finished(self, stage: str, seconds: float) -> None:
        """A stage is done."""

    def progress(self, description: str, done: int, total: int) -> None:
        """Items, or steps of training, are done."""

    def window(self, record: dict[str, Any]) -> None:
        """Training finished a window of steps; may be called from another thread."""


class SilentObserver:
    """Says nothing."""

    def started(self, stage: str) -> None:
        """Do nothing."""

    def skipped(self, stage: str) -> None:
        """Do nothing."""

    def finished(self, stage: str, seconds: float) -> None:
        """Do nothing."""

    def progress(self, description: str, done: int, total: int) -> None:
        """Do nothing."""

    def window(self, record: dict[str, Any]) -> None:
        """Do nothing."""
