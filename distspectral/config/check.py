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
    TooFewClassesError,
    TooFewRowsError,
    TooManyClustersError,
)
from distspectral.graph.config import check as check_affinity
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
    if config.objective == "dscl":
        _check_metric(config, source)
    else:
        _check_spectral(config, source)
    _check_batches(config, source.dim)
    _check_start(config, source.dim)
    check_writable(config.root)
    if importlib.util.find_spec("faiss") is None:
        raise MissingDependencyError(
            "faiss is not installed: pip install 'distspectral[cpu]' (or 'distspectral[gpu]' with CUDA)"
        )
    if config.mlflow is not None and importlib.util.find_spec("mlflow") is None:
        raise MissingDependencyError(
            "mlflow is not installed: pip install 'distspectral[mlflow]', or leave out the section mlflow"
        )


def _check_batches(config: RunConfig, dim: int) -> None:
    """Refuse batches, of any training of this run, that hold less than one item for each worker."""
    chain, n_workers = config.chain(dim), config.ray.max_workers if config.ray.enabled else 1
    least = {"train": n_workers, "autoencoder": n_workers, "siamese": 2 * n_workers}
    for section in (name for name in least if name in chain):
        batch_size = getattr(config, section).batch_size
        if batch_size < least[section]:
            raise ConfigError(
                f"{section}.batch_size: is {batch_size} per step for {n_workers} workers (ray.workers); every worker "
                f"needs at least {'a pair of either kind' if section == 'siamese' else 'one'}"
            )


def _check_start(config: RunConfig, dim: int) -> None:
    """Refuse a run to start from that is not finished, is this one, or has networks of another shape."""
    if config.start_from is None:
        return
    if Artifact(config.start_from).path == Artifact(config.root).path:
        raise ConfigError(
            f"start_from: is {config.start_from}, this run's own root, whose networks would be overwritten; give this "
            "run another root"
        )
    chain = config.chain(dim)
    trainings = {"autoencoder": config.autoencoder_settings, "siamese": config.siamese_settings}
    trainings["train"] = config.train_settings
    for stage in (name for name in trainings if name in chain):
        settings = trainings[stage]
        assert settings.start_from is not None, "start_from is set"
        found = Artifact(settings.start_from).manifest().properties
        sees_rows_alone = stage == "autoencoder" or not {"codes", "features"} & set(chain)
        for name, value in (settings.shape | ({"dim": dim} if sees_rows_alone else {})).items():
            if found.get(name) != value:
                raise ConfigError(
                    f"start_from: {settings.start_from} has {name} = {found.get(name)}, this run {value}; weights fit "
                    "only the same settings, so take that run's config and change name, root and data"
                )


def _check_metric(config: RunConfig, source: Source) -> None:
    dscl, batch_size = config.dscl, config.train.batch_size
    if source.label_type is None:
        raise ConfigError("data.label_column: is not set, and objective dscl learns from labels; name their column")
    if config.train.inputs not in ("auto", ("vector",)):
        raise ConfigError("train.inputs: is for objective spectral; a metric sees the vectors, so leave it out")
    if batch_size < 2 * dscl.rows_per_class:
        raise TooFewClassesError(
            f"train.batch_size: is {batch_size} rows for dscl.rows_per_class = {dscl.rows_per_class}; a batch needs 2 "
            f"classes, so at least {2 * dscl.rows_per_class} rows"
        )
    if dscl.n_components >= batch_size:
        raise ConfigError(
            f"dscl.n_components: is {dscl.n_components} for batches of {batch_size} rows (train.batch_size); as many "
            "columns as rows span everything, so the loss is 0 whatever is learned: lower it, or raise the batch size"
        )
    if config.network.trunk is not None:
        from distspectral.models.trunks import embedding_network

        embedding_network(source.dim, dscl.n_components, config.network)


def _check_spectral(config: RunConfig, source: Source) -> None:
    _check_rows(config, source.n_rows)
    _check_inputs(config)
    check_affinity(config.graph.n_neighbors, config.affinity)
    if config.network.trunk is not None:
        raise ConfigError(
            "network.trunk: is set, but calibration folds a rotation into the perceptron of objective spectral; "
            "remove it and set network.hidden"
        )


def _check_inputs(config: RunConfig) -> None:
    """Refuse inputs of the network that the run does not, or may not, make."""
    if config.train.inputs == "auto":
        return
    if len(set(config.train.inputs)) < len(config.train.inputs):
        raise ConfigError(f"train.inputs: names one twice ({', '.join(config.train.inputs)}); name each once")
    needs = {
        "code": ("representation", "code", config.representation),
        "siamese": ("affinity.space", "siamese", config.affinity.space),
    }
    for space in config.train.inputs:
        key, wanted, found = needs.get(space, ("", "", ""))
        if wanted != found:
            raise ConfigError(f"train.inputs: asks for {space}, which needs {key} = {wanted}; it is {found}")


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
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise OutputNotWritableError(f"root {root}: cannot be written ({error}); choose another root") from error
