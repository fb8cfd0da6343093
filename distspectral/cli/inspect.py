"""``distspectral inspect``: what an artifact, or every artifact of a run, says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distspectral.cli.console import manifest_table, print_json, print_table
from distspectral.cli.options import AsJson
from distspectral.errors import MissingArtifactError

if TYPE_CHECKING:
    from distspectral.storage.artifact.directory import Artifact

ArtifactPath = Annotated[
    str, typer.Argument(metavar="ARTIFACT_OR_RUN", help="Directory of an artifact or of a run.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect")(inspect)


def inspect(path: ArtifactPath, as_json: AsJson = False) -> None:
    """Show an artifact's manifest, or those of all artifacts of a run."""
    manifests = {one.uri: one.manifest() for one in _finished(path)}
    if as_json:
        print_json({uri: manifest.model_dump() for uri, manifest in manifests.items()})
        return
    for uri, manifest in manifests.items():
        print_table(manifest_table(manifest, uri))


def _finished(path: str) -> list[Artifact]:
    """Return the artifact itself, or the run's finished artifacts in the order of the stages."""
    from distspectral.stages import FOLDERS
    from distspectral.storage.artifact.directory import MANIFEST, Artifact

    artifact = Artifact(path)
    if artifact.has(MANIFEST):
        return [artifact]
    found = [artifact.child(folder) for folder in FOLDERS]
    found = [one for one in found if one.has(MANIFEST)]
    if not found and not artifact.exists():
        raise MissingArtifactError(f"{path}: does not exist; name the directory of an artifact or of a run")
    if not found:
        raise MissingArtifactError(f"{path}: neither a finished artifact nor a run that holds one")
    return found
