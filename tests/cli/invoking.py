"""Commands as a test gives them, in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from distspectral.cli.app import app


def invoke(*arguments: object, columns: int = 200) -> Result:
    """Run ``distspectral`` with these arguments on a terminal that is so many characters wide."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})
