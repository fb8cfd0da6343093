"""What stands in the root of a run: of which kind it is, where its stages wrote, and whether they belong together."""

from __future__ import annotations

from distspectral.errors import ArtifactError, ConfigError, FingerprintMismatchError, MissingArtifactError
from distspectral.recipes import SpectralRecipe
from distspectral.stages import STAGES
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest

METRICS = "metrics.json"
PAGE = "report.html"
CONFIG = "config.yaml"
"""What the run was told, resolved: all that is needed beside its artifacts to embed other rows."""
CUTS, TILES = "cuts", "tiles"
"""Folders of what later commands make of its tree: cuts, side by side, and tiles of its map."""


class FinishedRun:
    """A run of which at least one stage that tells its kind is finished.

    Args:
        root: the run's directory.

    Attributes:
        root: the same.
        kind: as ``objective`` of the run's config calls it, known by what only such a run writes.

    Raises:
        MissingArtifactError: nothing of the kind stands there.
    """

    def __init__(self, root: Artifact) -> None:
        self.root, self.kind = root, _kind_of(root)

    def artifact(self, stage: str) -> Artifact:
        """Return where a stage of this kind of run writes."""
        return self.root.child(STAGES[self.kind][stage].folder)

    def require_kind(self, kind: str, what: str) -> None:
        """Refuse a run of another kind.

        Args:
            kind: that is asked for.
            what: runs of that kind alone have.

        Raises:
            ConfigError: it is of another one.
        """
        if self.kind != kind:
            raise ConfigError(
                f"{self.root.uri}: a run of objective {self.kind} has no {what}; take one of objective {kind}"
            )

    def require(self, stage: str) -> Manifest:
        """Return the manifest of a finished, undamaged stage.

        Raises:
            MissingArtifactError, DamagedArtifactError: see :meth:`Artifact.require`.
        """
        artifact = self.artifact(stage)
        return artifact.require(artifact.manifest().fingerprint)

    def require_read(self, read: str, stage: str) -> Manifest:
        """Return the manifest of an undamaged stage that another one has read.

        Args:
            read: the stage that was read.
            stage: the one that read it.

        Raises:
            MissingArtifactError, DamagedArtifactError: see :meth:`Artifact.require`.
            FingerprintMismatchError: see :func:`require_source`.
        """
        found, reader = self.require(read), self.artifact(stage)
        require_source(reader, reader.manifest().inputs[read], self.artifact(read), found.fingerprint)
        return found

    def graph(self) -> tuple[Artifact, Artifact]:
        """Return the neighbours and the graph that the run's model was trained on.

        Raises:
            MissingArtifactError: the model is not finished.
            ConfigError: the run has no graph.
        """
        self.require_kind(SpectralRecipe.kind, "graph")
        read = self.artifact("calibrate").manifest().inputs
        graph = next(stage for stage in ("reweight", "siamese_graph", "graph") if stage in read)
        return self.artifact("siamese_neighbors" if graph == "siamese_graph" else "neighbors"), self.artifact(graph)


def of_earlier_trees(root: Artifact) -> list[str]:
    """Return which cuts of a run, and whether its ``tiles``, are of another tree than it has: other leaves, other rows.

    Args:
        root: of the run; one without a tree has nothing of an earlier one.
    """
    tree = root.child(STAGES[SpectralRecipe.kind]["tree"].folder)
    if not tree.has(MANIFEST):
        return []
    standing, found = tree.manifest().fingerprint, []
    for name in [*(f"{CUTS}/{one}" for one in sorted(entry.base_name for entry in root.entries(CUTS))), TILES]:
        made = root.child(name)
        if made.has(MANIFEST) and _tree_of(made) != standing:
            found.append(name)
    return found


def _tree_of(made: Artifact) -> str | None:
    """Return the fingerprint of the tree that it was made of; None where that cannot be read, as of old formats."""
    try:
        return made.manifest().inputs.get("tree")
    except ArtifactError:
        return None


def require_source(artifact: Artifact, made_from: str, source: Artifact, standing: str) -> None:
    """Refuse an artifact that was made from another one than the one that stands there.

    Args:
        artifact: made.
        made_from: fingerprint that its manifest tells of the source.
        source: where that stands.
        standing: fingerprint of what stands there.

    Raises:
        FingerprintMismatchError: the two differ.
    """
    if made_from != standing:
        raise FingerprintMismatchError(
            f"{artifact.uri}: was made from another {source.uri} than the one that stands there; `distspectral run` "
            "brings them together"
        )


def _kind_of(root: Artifact) -> str:
    for kind, stages in STAGES.items():
        shared = {stage.folder for other in STAGES if other != kind for stage in STAGES[other].values()}
        own = {stage.folder for stage in stages.values()} - shared
        if any(root.child(folder).has(MANIFEST) for folder in own):
            return kind
    if not root.exists():
        raise MissingArtifactError(f"{root.uri}: does not exist; name the directory of a finished run")
    raise MissingArtifactError(f"{root.uri}: holds no finished run; `distspectral run` makes one")
