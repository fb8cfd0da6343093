from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.invoking import invoke


def view(*words: object) -> Result:
    return invoke("view", *words)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a browser was asked to open; there is a display."""
    found: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: found.append(address) is None)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a run's <b>"
    folder.mkdir()
    (folder / "report.html").write_text("page")
    return folder


def test_the_page_is_opened_by_its_address(root: Path, opened: list[str]) -> None:
    result = view(root)
    assert result.exit_code == 0
    assert opened == [(root / "report.html").as_uri()]
    assert f"opened {root}/report.html" in result.stdout


def test_where_no_window_can_open_the_path_is_printed(
    root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view(root, "--path").stdout == f"{root}/report.html\n"
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert view(root).stdout == f"{root}/report.html\n"
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail("a browser in the terminal"))
    assert view(root).stdout == f"{root}/report.html\n"
    assert opened == []


def test_a_run_without_a_page_is_refused_with_the_remedy(tmp_path: Path, opened: list[str]) -> None:
    result = view(tmp_path)
    assert result.exit_code == 2
    assert "has no report.html" in result.stderr
    assert "distspectral run CONFIG" in " ".join(result.stderr.split())
    assert f"distspectral report {tmp_path}" in " ".join(result.stderr.split())
    assert opened == []
