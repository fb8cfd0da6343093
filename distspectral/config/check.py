"""What no single key can tell: keys against each other, against the data's headers and against this machine."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from pyarrow import fs

from distspectral.config.run import RunConfig
from distspectral.errors import ConfigError, MissingDependencyError, OutputNotWritableError
from distspectral.recipes import Recipe
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.filesystems import resolve
from distspectral.storage.source.dataset import Source


def check(config: RunConfig, source: Source) -> None:
    """Refuse what is bound to fail, before any worker starts. Leaves nothing behind.

    Args:
        config: the run.
        source: its opened data; only headers have been read.

    Raises:
        ConfigError: two values contradict each other.
        TooManyClustersError: more clusters than rows.
        TooFewRowsError: fewer rows than neighbours or functions need.
        TooFewClassesError: batches too small for two classes.
        OutputNotWritableError: the root cannot be written.
        MissingDependencyError: FAISS is not installed, or MLflow where it is asked for.
    """
    recipe = config.recipe(source.dim)
    recipe.check(source.n_rows, source.label_type is not None)
    recipe.check_workers((config.ray.max_workers or 1) if config.ray.enabled else 1)
    _check_start(config, recipe)
    check_writable(config.root)
    if importlib.util.find_spec("faiss") is None:
        raise MissingDependencyError(
            "faiss is not installed: pip install 'distspectral[cpu]' (or 'distspectral[gpu]' with CUDA)"
        )
    if config.mlflow is not None and importlib.util.find_spec("mlflow") is None:
        raise MissingDependencyError(
            "mlflow is not installed: pip install 'distspectral[mlflow]', or leave out the section mlflow"
        )


def _check_start(config: RunConfig, recipe: Recipe) -> None:
    """Refuse a run to start from that is not finished, is this one, or has networks of another shape."""
    if config.start_from is None:
        return
    if Artifact(config.start_from).path == Artifact(config.root).path:
        raise ConfigError(
            f"start_from: is {config.start_from}, this run's own root, whose networks would be overwritten; give this "
            "run another root",
            ["start_from"],
        )
    recipe.check_start()


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
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise OutputNotWritableError(f"root {root}: cannot be written ({error}); choose another root") from error
