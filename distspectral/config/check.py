"""What no single key can tell: keys against each other, against the data's headers and against this machine."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from pyarrow import fs

from distspectral.config.run import RunConfig
from distspectral.errors import (
    ConfigError,
    MissingDependencyError,
    OutputNotWritableError,
    TooFewRowsError,
    TooManyClustersError,
)
from distspectral.graph.config import check as check_affinity
from distspectral.storage.artifacts import resolve
from distspectral.storage.sources import Source


def check(config: RunConfig, source: Source) -> None:
    """Refuse what is bound to fail, before any worker starts. Leaves nothing behind.

    Args:
        config: the run.
        source: its opened data; only headers have been read.

    Raises:
        ConfigError: two values contradict each other.
        TooManyClustersError: more clusters than rows.
        TooFewRowsError: fewer rows than neighbours or functions need.
        OutputNotWritableError: the root cannot be written.
        MissingDependencyError: FAISS is not installed.
    """
    _check_rows(config, source.n_rows)
    check_affinity(config.graph.n_neighbors, config.affinity)
    if config.ray.enabled and config.train.batch_size < config.ray.workers:
        raise ConfigError(
            f"train.batch_size: is {config.train.batch_size} edges per step for {config.ray.workers} workers "
            "(ray.workers); every worker needs at least one"
        )
    check_writable(config.root)
    if importlib.util.find_spec("faiss") is None:
        raise MissingDependencyError(
            "faiss is not installed: pip install 'distspectral[cpu]' (or 'distspectral[gpu]' with CUDA)"
        )


def _check_rows(config: RunConfig, n_rows: int) -> None:
    n_clusters, n_neighbors = config.cluster.n_clusters, config.graph.n_neighbors
    if isinstance(n_clusters, int) and n_clusters > n_rows:
        raise TooManyClustersError(
            f"cluster.n_clusters: is {n_clusters}, but data.path holds {n_rows} rows; ask for at most as many as rows"
        )
    if n_rows < n_neighbors + 1:
        raise TooFewRowsError(
            f"data.path: holds {n_rows} rows, but graph.n_neighbors = {n_neighbors} needs at least {n_neighbors + 1}; "
            "lower graph.n_neighbors"
        )
    n_functions = config.spectral.n_functions(config.n_components)
    if n_functions > n_rows:
        raise TooFewRowsError(
            f"data.path: holds {n_rows} rows, but {n_functions} functions are to be trained ({config.n_components} "
            "kept and the oversampling); lower spectral.n_components, spectral.oversampling or cluster.n_clusters"
        )


def check_writable(root: str) -> None:
    """Refuse a root that cannot be made or written.

    A local root is probed by a file that vanishes again; of a remote one only that it can be reached.

    Raises:
        OutputNotWritableError: it cannot.
    """
    try:
        filesystem, path = resolve(root)
        if not isinstance(filesystem, fs.LocalFileSystem):
            filesystem.get_file_info(path)
            return
        existing = Path(path)
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise OutputNotWritableError(f"root {root}: {existing} is a file; choose another root")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except (OSError, ValueError) as error:
        raise OutputNotWritableError(f"root {root}: cannot be written ({error}); choose another root") from error
