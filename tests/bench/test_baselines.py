"""Other methods in an environment of their own: made once, asked through pipes, honest about what it lacks."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distspectral.bench import baseline_methods as script
from distspectral.bench import baselines
from distspectral.bench.baselines import Baseline, ensure_environment
from distspectral.errors import ConfigError, DistSpectralError, MissingDependencyError
from tests.datasets import blobs

HERE = Path(sys.executable)
"""This interpreter has scikit-learn: an environment as good as any for k-means."""


def test_every_method_has_its_requirements_and_a_warm_up():
    assert set(script.METHODS) == set(script.WARM_UPS) == set(baselines.REQUIREMENTS)


def test_a_process_clusters_one_set_after_another():
    with Baseline(HERE, "k-means") as baseline:
        for dim in (4, 2):
            rows, labels = blobs(200, dim)
            found, took = baseline.cluster(rows, 3, 0)
            assert found.shape == (200,)
            assert {len(np.unique(found[labels == one])) for one in range(3)} == {1}
            assert set(took) == {"core_seconds", "seconds"}


def test_the_script_needs_nothing_of_this_package():
    imports = "import sys, runpy; runpy.run_path(sys.argv[1]); print({'torch', 'distspectral'} & set(sys.modules))"
    done = subprocess.run([HERE, "-I", "-c", imports, script.__file__], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(importlib.util.find_spec("spectralnet") is not None, reason="spectralnet is installed here")
def test_a_package_that_is_not_there_is_named():
    with Baseline(HERE, "spectralnet") as baseline, pytest.raises(MissingDependencyError, match="package spectralnet"):
        baseline.cluster(np.eye(4, dtype=np.float32), 2, 0)


def test_a_method_that_fails_says_why():
    with (
        Baseline(HERE, "k-means") as baseline,
        pytest.raises(DistSpectralError, match=r"k-means in .*ValueError: .*n_samples=2"),
    ):
        baseline.cluster(np.eye(2, dtype=np.float32), 3, 0)


def test_a_process_that_dies_is_not_waited_for():
    with Baseline(HERE, "no such method") as baseline:
        baseline._process.kill()
        with pytest.raises(DistSpectralError, match="ended with -9"):
            baseline.cluster(np.eye(2, dtype=np.float32), 2, 0)


def test_an_environment_is_made_once_and_grows_with_the_methods(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(
        baselines, "_run", lambda command: (ran.append(command), (tmp_path / "env").mkdir(exist_ok=True))
    )
    python = ensure_environment(tmp_path / "env", ["k-means"])
    assert python.is_relative_to(tmp_path / "env")
    venv, pip = ran
    assert venv == [sys.executable, "-m", "venv", str(tmp_path / "env")]
    assert pip[:4] == [str(python), "-m", "pip", "install"]
    assert pip[6:] == sorted(baselines.SCIKIT_LEARN)
    ensure_environment(tmp_path / "env", ["scikit-learn"])
    assert len(ran) == 2, "has all that it needs"
    ensure_environment(tmp_path / "env", ["evoc"])
    assert "evoc==0.3.2" in ran[2]
    assert set(json.loads((tmp_path / "env" / baselines.MADE).read_text())) >= {*baselines.SCIKIT_LEARN, "evoc==0.3.2"}


def test_what_somebody_else_made_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "_run", lambda command: pytest.fail(f"ran {command}"))
    (tmp_path / "notes").mkdir()
    with pytest.raises(ConfigError, match="no virtual environment"):
        ensure_environment(tmp_path / "notes", ["evoc"])
    python = baselines.python_of(tmp_path / "theirs")
    python.parent.mkdir(parents=True)
    python.touch()
    assert ensure_environment(tmp_path / "theirs", ["evoc"]) == python


def test_pip_that_fails_is_quoted(tmp_path):
    with pytest.raises(DistSpectralError, match="ended with 3: no network"):
        baselines._run([sys.executable, "-c", "import sys; sys.stderr.write('no network'); sys.exit(3)"])


@pytest.mark.parametrize(("n_clusters", "expected"), [(1, 1), (5, 5), (7, 7), (100, 40)])
def test_the_resolution_is_scanned_for_the_number_of_clusters(n_clusters, expected):
    tried = []

    def communities(resolution):
        tried.append(resolution)
        return np.arange(40) % min(40, max(1, round(4 * resolution)))

    assert len(np.unique(script.scan(communities, n_clusters))) == expected
    assert len(tried) <= script.SCANS
    assert len(set(tried)) == len(tried)


def test_of_resolutions_that_all_miss_the_nearest_counts():
    def communities(resolution):
        return np.arange(40) % (3 if resolution < 1.3 else 8)

    assert len(np.unique(script.scan(communities, 5))) == 3
    assert len(np.unique(script.scan(communities, 6))) == 8


def test_leiden_finds_blobs():
    pytest.importorskip("igraph", reason="igraph is in the baselines' environment only")
    rows, labels = blobs(200, 4)
    found = script.leiden(rows, 3, 0)
    assert {len(np.unique(found[labels == one])) for one in range(3)} == {1}
