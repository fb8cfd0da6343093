"""The rooms of storage import to the right only: source, rows, artifact."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("modules", "room"),
    [
        (("rows.vectors", "rows.joined", "rows.arrays", "rows.ids", "rows.sparse"), "source"),
        (("artifact.output", "artifact.quarantine", "artifact.cache"), "rows"),
        (("artifact.output", "artifact.quarantine", "artifact.cache"), "source"),
    ],
)
def test_a_room_loads_without(modules: tuple[str, ...], room: str) -> None:
    code = f"import sys, {', '.join(f'distspectral.storage.{name}' for name in modules)}; "
    code += f"print([name for name in sys.modules if 'distspectral.storage.{room}' in name])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
