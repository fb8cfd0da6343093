"""The command ``distspectral``; heavy libraries are imported by the commands that need them."""

from __future__ import annotations

from distspectral.cli.app import main

__all__ = ["main"]
