"""Baselines in an environment of their own: made by ``venv`` and pip from pinned versions, one process a method.

Nothing is installed into the environment that this package runs in.
Shape letters: N rows, D features, C clusters.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from distspectral.bench import baseline_methods
from distspectral.errors import ConfigError, DistSpectralError, MissingDependencyError

SCIKIT_LEARN = ("numpy==2.4.6", "scikit-learn==1.9.1", "scipy==1.17.1")
UMAP = (*SCIKIT_LEARN, "umap-learn==0.5.12", "pynndescent==0.7.0", "numba==0.68.1")
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "k-means": SCIKIT_LEARN,
    "umap-kmeans": UMAP,
    "umap-hdbscan": UMAP,
    "scikit-learn": SCIKIT_LEARN,
    "leiden": (*UMAP, "igraph==1.0.0"),
    "evoc": (*SCIKIT_LEARN, "evoc==0.3.2", "numba==0.68.1"),
    "spectralnet": (*SCIKIT_LEARN, "spectralnet==1.1.0", "torch==2.13.0", "setuptools", "wheel"),
}
"""What each method of the script needs, for pip."""
LAYOUTS: dict[str, tuple[str, ...]] = {
    "umap": UMAP,
    "parametric-umap": (*UMAP, "torch==2.13.0"),
    "opentsne": (*SCIKIT_LEARN, "openTSNE==1.0.4"),
    "pacmap": (*SCIKIT_LEARN, "pacmap==0.9.1", "numba==0.68.1"),
}
"""Likewise, of the methods that lay rows out in the plane."""
PINS = REQUIREMENTS | LAYOUTS
MADE = "distspectral-baselines.json"
"""In an environment that this module made: what it installed there."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Threads that wait for each other spin, which counts as core-seconds."""


def python_of(folder: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure_environment(folder: Path, methods: Iterable[str]) -> Path:
    """Return the interpreter of an environment with what methods need; one that is not there is made.

    Args:
        folder: of a virtual environment. One that this function did not make is taken as it is.
        methods: of :data:`PINS`.

    Raises:
        ConfigError: there is a folder that is no virtual environment.
        DistSpectralError: pip failed.
    """
    python, made = python_of(folder), folder / MADE
    if folder.exists() and not made.exists():
        if not python.exists():
            raise ConfigError(
                f"--baselines-env: {folder} is no virtual environment; name one, or what is not there yet"
            )
        return python
    wanted = {pin for method in methods for pin in PINS[method]}
    installed = set(json.loads(made.read_text())) if made.exists() else set()
    if not made.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
        made.write_text("[]")
    if wanted - installed:
        pins = sorted(wanted | installed)
        _run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *pins])
        made.write_text(json.dumps(pins))
    return python


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise DistSpectralError(
            f"{' '.join(command[:5])} ended with {ended.returncode}: {ended.stderr.strip()[-2000:]}"
        )


class Baseline:
    """A method's process, in one thread; a context.

    Args:
        python: interpreter of the baselines' environment.
        method: of :data:`distspectral.bench.baseline_methods.METHODS` or ``LAYOUTS``.
    """

    def __init__(self, python: Path, method: str) -> None:
        self._python, self._method = python, method

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="distspectral-baseline-")
        self._told = Path(self._folder.name, "stderr").open("w+")
        self._process = subprocess.Popen(
            [self._python, "-I", baseline_methods.__file__, self._method],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            env=os.environ | ONE_THREAD,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()  # in the middle of its work
        self._process.communicate()
        self._told.close()
        self._folder.cleanup()

    def cluster(
        self, rows: NDArray[np.float32], n_clusters: int, seed: int
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Return labels (N,), -1 for rows left out, and ``core_seconds`` and ``seconds`` without compilation.

        Args:
            rows: (N, D).
            n_clusters: C, for methods that are told.
            seed: of the method.

        Raises:
            MissingDependencyError: the environment lacks a package.
            DistSpectralError: the method failed, or its process ended.
        """
        found, took = self._asked({"rows": rows}, "labels", {"n_clusters": n_clusters, "seed": seed})
        return found, took

    def lay_out(
        self, rows: NDArray[np.float32], new: NDArray[np.float32], seed: int
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return places (N + B, 2), those of rows (N, D) first; NaN where the method has no place for new ones.

        Beside ``core_seconds`` and ``seconds`` comes ``new_core_seconds``, of the new rows.

        Args:
            rows: (N, D) to be laid out.
            new: (B, D) to be placed afterwards.
            seed: of the method.

        Raises:
            MissingDependencyError, DistSpectralError: see :meth:`cluster`.
        """
        return self._asked({"rows": rows, "new": new}, "places", {"seed": seed})

    def _asked(
        self, given: Mapping[str, NDArray[Any]], wanted: str, more: Mapping[str, Any]
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return the array that the method answers with, and what it took."""
        assert self._process.stdin is not None, "is a pipe"
        assert self._process.stdout is not None, "is a pipe"
        files = {name: f"{self._folder.name}/{name}.npy" for name in (*given, wanted)}
        for name, array in given.items():
            np.save(files[name], array)
        with contextlib.suppress(BrokenPipeError):  # it says why on stderr
            print(json.dumps({**files, **more}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with {self._process.wait()}"}
        if "missing" in answer:
            needed = " ".join(PINS[self._method])
            raise MissingDependencyError(
                f"--method {self._method}: {self._python} lacks the package {answer['missing']}; name an environment "
                f"that has it, none for a new one, or install there: {needed}"
            )
        if "error" in answer:
            told = Path(self._told.name).read_text(errors="replace").strip()[-2000:]
            raise DistSpectralError(f"{self._method} in {self._python}: {answer['error']}\n{told}")
        return np.load(files[wanted]), answer
