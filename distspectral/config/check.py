"""What no single key can tell: keys against each other, against the data's headers and against this machine."""

from __future__ import annotations

import importlib.util
import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from distspectral.config.run import RunConfig
from distspectral.embedding.columns import columns_of, refuse_clashes
from distspectral.errors import (
    ConfigError,
    MissingDependencyError,
    OutputNotWritableError,
    TooManyClustersError,
    first_line,
)
from distspectral.graph.config import check as check_affinity
from distspectral.graph.given import GivenGraph
from distspectral.recipes import Recipe
from distspectral.stages import FOLDERS
from distspectral.stages.finished_run import CONFIG
from distspectral.stages.known import as_begun
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.filesystems import absolute, join, require_answer, resolve
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.storage.source.listing import real_place, would_find

MOST_BYTES = 1 << 40
"""Of a network in training, or of a worker's share of a batch: more than a machine of today has memory for."""
MOST_UNITS = 1 << 20
"""Of a layer."""
ENDS = (".arrow", ".parquet")
"""Of the files of artifacts that hold rows."""
BYTES_PER_WEIGHT = 16
"""float32: the weight, its gradient and Adam's two moments."""


def check(config: RunConfig, source: Source, *, imports: bool = True) -> None:
    """Refuse what is bound to fail, before any worker starts. Leaves nothing behind.

    Args:
        config: the run.
        source: its opened data; only headers have been read.
        imports: whether a network of the user's own may be imported, which runs its code.

    Raises:
        ConfigError: two values contradict each other.
        TooManyClustersError: more clusters than rows.
        TooFewRowsError: fewer rows than neighbours or functions need.
        TooFewClassesError: batches too small for two classes.
        OutputNotWritableError: the root cannot be written.
        MissingDependencyError: FAISS is not installed, or MLflow where it is asked for.
    """
    recipe = config.recipe(source.dim, source.n_rows)
    recipe.check(source.n_rows, source.label_type is not None)
    recipe.check_workers((config.ray.max_workers or 1) if config.ray.enabled else 1)
    recipe.check_batches()
    _check_graph(config, source)
    _check_pictures(config.data, source.dim)
    _check_columns(config, source)
    _check_sizes(config, recipe)
    if imports:
        recipe.import_trunk()
    _check_start(config, recipe)
    _check_root(config, source)
    check_writable(config.root)
    if importlib.util.find_spec("faiss") is None:
        raise MissingDependencyError("faiss is not installed: pip install '.[cpu]' (or '.[gpu]' with CUDA)")
    if config.mlflow is not None and importlib.util.find_spec("mlflow") is None:
        raise MissingDependencyError(
            "mlflow is not installed: pip install '.[mlflow]', or leave out the section mlflow"
        )


def _check_graph(config: RunConfig, source: Source) -> None:
    """Refuse a given graph that is none, or of other rows; which of these are set aside shows later only."""
    if config.graph.path is not None and config.objective == "spectral":
        given = GivenGraph.open(absolute(config.graph.path), precomputed=config.affinity.kind == "precomputed")
        if config.data.on_bad_rows == "error":
            given.require_rows(source.n_rows)
        check_affinity(given.n_neighbors, config.affinity)


def _check_pictures(config: SourceConfig, dim: int) -> None:
    """Refuse a shape of pictures that rows of ``dim`` features do not have."""
    if (shape := config.image_shape) is None:
        return
    words = " x ".join(map(str, shape))
    if math.prod(shape) != dim:
        raise ConfigError(
            f"data.image_shape: {words} makes {math.prod(shape):,} values, rows have {dim:,}; give height, width and "
            "channels of a row, or leave it out",
            ["data.image_shape"],
        )
    if len(shape) == 3 and not {1, 3} & {shape[0], shape[2]}:
        raise ConfigError(
            f"data.image_shape: is {words}, expected 1 or 3 channels, first or last; leave it out if rows have others",
            ["data.image_shape"],
        )


def _check_columns(config: RunConfig, source: Source) -> None:
    """Refuse carried columns that the output has no place for, and columns of a map that is not drawn."""
    if config.data.carry and config.objective != "spectral":
        raise ConfigError(
            f"data.carry: is for objective spectral, not {config.objective}, whose embedding is read like vectors; "
            "leave it out, and join your columns by id",
            ["data.carry", "objective"],
        )
    refuse_clashes(source)
    if config.objective == "spectral":
        columns_of(config.embed.columns, config.map.enabled)


def _check_sizes(config: RunConfig, recipe: Recipe) -> None:
    """Refuse networks and batches that no machine has memory for, and a sample of fewer rows than clusters."""
    n_clusters, sample_rows = config.cluster.n_clusters, config.cluster.sample_rows
    if config.objective == "spectral" and isinstance(n_clusters, int) and n_clusters > sample_rows:
        raise TooManyClustersError(
            f"cluster.n_clusters: is {n_clusters:,}, but k-means sees {sample_rows:,} rows (cluster.sample_rows); "
            "lower the one or raise the other",
            ["cluster.n_clusters", "cluster.sample_rows"],
        )
    n_workers = (config.ray.max_workers or 1) if config.ray.enabled else 1
    for stage, settings in recipe.trainings.items():
        widths = recipe.layers.get(stage, (recipe.dim,))
        section = "network" if stage == "train" else stage
        outputs = config.objective if stage == "train" else stage  # the objective's own section
        for key, units in (
            (f"{section}.hidden", max(widths[1:-1], default=1)),
            (f"{outputs}.n_components", widths[-1]),
        ):
            if units > MOST_UNITS and len(widths) > 1:
                raise ConfigError(f"{key}: makes a layer of {units:,} units, expected at most {MOST_UNITS:,}", [key])
        n_bytes = BYTES_PER_WEIGHT * sum(wide * high for wide, high in itertools.pairwise(widths))
        if n_bytes > MOST_BYTES:
            raise ConfigError(
                f"{section}.hidden: makes a network {'-'.join(map(str, widths))}, which takes {n_bytes >> 30:,} GiB in "
                f"training, expected at most {MOST_BYTES >> 30:,}; give it narrower layers",
                [f"{section}.hidden"],
            )
        key, batch_size = f"{settings.train.section}.batch_size", settings.train.batch_size
        n_bytes = 4 * sum(widths) * batch_size // n_workers
        if n_bytes > MOST_BYTES:
            raise ConfigError(
                f"{key}: is {batch_size:,}, of which each of {n_workers:,} workers would hold at least "
                f"{n_bytes >> 30:,} GiB, expected at most {MOST_BYTES >> 30:,}; lower it",
                [key],
            )


def _check_root(config: RunConfig, source: Source) -> None:
    """Refuse a root whose artifacts would be read as shards, or overwrite them."""
    filesystem, root = real_place(config.root)
    written = tuple(f"{root}/{folder}/" for folder in FOLDERS)
    for file in source.files:
        if file.real_path.startswith(written) and file.filesystem.equals(filesystem):
            raise ConfigError(
                f"data.path: {file.uri} lies in {config.root} (root), where this run writes; choose another root",
                ["data.path", "root"],
            )
    if (path := _path_around(source, config.root, FOLDERS)) is not None:
        raise ConfigError(
            f"root: is {config.root}, inside data.path = {path}, where artifacts would be read as shards; choose a "
            "root beside the data",
            ["root", "data.path"],
        )


def check_output(source: Source, output: str) -> None:
    """Refuse an output for other rows that would be read as some of them the next time.

    Raises:
        ConfigError: just that.
    """
    if (path := _path_around(source, output, ("", *FOLDERS))) is not None:
        raise ConfigError(f"--output: is {output}, inside the new rows' {path}; choose a place beside it")


def _path_around(source: Source, place: str, folders: Sequence[str]) -> str | None:
    """Return which path of the source would find the shards of artifacts in folders of a place."""
    _, root = real_place(place)
    searched = {file.folder: file for file in source.files if file.folder != file.path}.values()
    if not any(f"{root}/".startswith(f"{file.real_folder.rstrip('/')}/") for file in searched):
        return None
    made = [join(join(place, folder), f"part-00000{end}") for folder in folders for end in ENDS]
    paths = [source.config.path] if isinstance(source.config.path, str) else source.config.path
    return next((path for path in paths if would_find(path, made)), None)


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
    if not Artifact(config.start_from).has(CONFIG):
        raise ConfigError(
            f"start_from: {config.start_from} holds no run (no {CONFIG}); name the root of a finished one",
            ["start_from"],
        )
    as_begun(recipe).check_start()


def check_writable(root: str) -> None:
    """Refuse a root that cannot be made or written.

    A local root is probed by a file that vanishes again; of a remote one only that it can be reached.

    Raises:
        OutputNotWritableError: it cannot.
    """
    try:
        filesystem, path = resolve(root)
        if root.startswith("hf://"):
            raise OutputNotWritableError(f"root {root}: hf:// is for reading; choose another root")
        if not isinstance(filesystem, fs.LocalFileSystem):
            require_answer(root)
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
    except (OSError, ValueError, pa.ArrowException) as error:
        raise OutputNotWritableError(
            f"root {root}: cannot be written ({first_line(error)}); choose another root"
        ) from error
