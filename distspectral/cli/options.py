"""Arguments that several commands share, and what they are turned into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distspectral.errors import ConfigError, MissingArtifactError

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.orchestration.engine import Engine
    from distspectral.storage.artifact.directory import Artifact

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.", show_default=False)]
RunOrConfig = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Directory of a finished run, or the YAML file of one.", show_default=False),
]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Replace a value of the config; may be repeated.", show_default=False),
]
Local = Annotated[bool, typer.Option("--local", help="Work in this process, without Ray.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]


def load(path: Path, overrides: list[str] | None) -> RunConfig:
    """Return the config of a file with its overrides."""
    from distspectral.config import load_config

    return load_config(path, overrides or ())


def is_config(run: str) -> bool:
    """Return whether what names a run is its YAML file rather than its directory."""
    return "://" not in run and Path(run).is_file()


def require_apart(places: Sequence[str], run: str, option: str) -> None:
    """Refuse files that would be read as the run's rows, or lie among files of ours.

    Args:
        places: local paths or URIs of the files.
        run: directory of the finished run that they are made of.
        option: what the user calls their place.

    Raises:
        ConfigError: just that.
    """
    from distspectral.stages.finished_run import CONFIG
    from distspectral.storage.artifact.directory import MANIFEST, Artifact
    from distspectral.storage.filesystems import absolute
    from distspectral.storage.source.listing import real_place, would_find

    has_config = Artifact(run).has(CONFIG)  # not the root of a run that single stages made
    paths = load_run(run, None).data.path if has_config else ()
    for place in places:
        folder = absolute(place).rpartition("/")[0]
        if Path(place).is_dir():
            raise ConfigError(f"{option}: {place} is a folder; name a file")
        if Artifact(folder).has(MANIFEST):
            raise ConfigError(f"{option}: {place} lies among the files of an artifact, {folder}; choose another place")
        for path in [paths] if isinstance(paths, str) else paths:
            if real_place(place) == real_place(path) or would_find(path, [place]):
                raise ConfigError(f"{option}: {place} would be read as rows of {path}; choose a place beside them")


def load_run(run: str, overrides: list[str] | None) -> RunConfig:
    """Return the config of a finished run's directory, or that of a YAML file.

    Raises:
        MissingArtifactError: there is neither.
    """
    from distspectral.config.load import config_of
    from distspectral.stages.finished_run import CONFIG
    from distspectral.storage.artifact.directory import Artifact

    if is_config(run):
        return load(Path(run), overrides)
    root = Artifact(run)
    if not root.exists():
        raise MissingArtifactError(f"{run}: does not exist; name the directory of a finished run, or its YAML file")
    if not root.has(CONFIG):
        raise MissingArtifactError(
            f"{run}: is neither a finished run, which holds {CONFIG}, nor a YAML file; name one of the two"
        )
    return config_of(root, overrides or ()).model_copy(update={"root": run})


def engine_of(config: RunConfig, local: bool) -> Engine:
    """Return the engine that the config, or ``--local``, asks for."""
    from distspectral.orchestration.engine import LocalEngine, make_engine

    return LocalEngine() if local else make_engine(config.ray)


def engine_of_run(root: Artifact, local: bool) -> Engine:
    """Return the engine for work on a finished run: the cluster that its config names, or this process.

    A Ray of the run's own is not started anew, for that takes longer than most of what is done to finished runs.
    """
    from distspectral.config.load import config_of
    from distspectral.orchestration.engine import LocalEngine, RayEngine, names_cluster
    from distspectral.stages.finished_run import CONFIG

    if local or not root.has(CONFIG):
        return LocalEngine()
    config = config_of(root).ray
    return RayEngine(config) if names_cluster(config) else LocalEngine()


def require_stage(name: str) -> None:
    """Refuse what is the name of no stage.

    Raises:
        ConfigError: just that.
    """
    from distspectral.stages import NAMES

    if name not in NAMES:
        raise ConfigError(f"stage {name}: is none; there are {', '.join(NAMES)}")
