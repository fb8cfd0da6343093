"""The site builds without a warning and asks nobody outside for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"(https?:)?//|<link[^>]+(?:stylesheet|preconnect|icon)[^>]+href=\"http"
)


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    assert [str(page) for page in pages if LOADED.search(page.read_text("utf-8"))] == []
    config = (tmp_path / "reference/config.html").read_text("utf-8")
    assert 'id="train.learning_rate"' in config
