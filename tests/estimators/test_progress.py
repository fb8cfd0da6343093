from __future__ import annotations

import importlib.util
import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.exceptions import ConvergenceWarning

from distspectral import DSCL, SpectralNet
from distspectral.estimators import progress
from tests.estimators.brief import METRIC, X, Y


def stderr(is_terminal: bool) -> SimpleNamespace:
    return SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: is_terminal))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal in place of stderr, and what is written to it."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120, force_jupyter=False, _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    monkeypatch.setattr(progress, "sys", stderr(is_terminal=True))
    return written


def test_a_terminal_has_a_bar_and_is_left_clean(terminal: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    model = DSCL(**METRIC).fit(X, Y)
    steps = model.history_[-1]["step"]
    assert f"{steps}/{steps}" in terminal.getvalue()
    assert "loss" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "the bar is taken away"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verbose", [False, 0])
def test_silence_is_had_by_asking(terminal: io.StringIO, verbose: Any) -> None:
    DSCL(**METRIC, verbose=verbose).fit(X, Y)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("verbose", [False, "auto"])
def test_a_graph_in_pieces_is_told_of_unless_silence_was_asked_for(
    caplog: pytest.LogCaptureFixture, verbose: Any
) -> None:
    rows = np.random.default_rng(0).standard_normal((90, 3)) + 50.0 * (np.arange(90) % 3)[:, None]
    model = SpectralNet(2, n_neighbors=5, affinity_space="euclidean", hidden=(8,), max_steps=5, verbose=verbose)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of so few steps
        model.fit(rows)
    assert model.graph_["components"] == 3, "more than clusters"
    assert ("The graph has 3 components" in caplog.text) == (verbose == "auto")


def test_specks_that_take_up_the_functions_are_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distspectral.clustering.diffusion.LOCAL", 10.0)  # as if no function lived on many rows
    SpectralNet(3, affinity_space="euclidean", hidden=(8,), max_steps=5, verbose="auto").fit(X)
    assert "Only 0 of the 6 functions live on more than a few rows, and 3 clusters are asked for" in caplog.text
    assert "such as n_components = 12" in caplog.text, "in the estimator's words"


def test_nothing_is_said_where_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    DSCL(**METRIC).fit(X, Y)
    assert capfd.readouterr() == ("", "")


def test_who_watches(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.is_watched()
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(progress.is_watched).result()
    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(progress, "sys", stderr(is_terminal=False))
    assert not progress.is_watched()
    notebook = Console(force_jupyter=True)
    monkeypatch.setattr(progress, "Console", lambda **_: notebook)
    for widgets in (None, object()):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _, found=widgets: found)
        assert progress.is_watched() == (widgets is not None)
