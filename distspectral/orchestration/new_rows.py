"""Rows that a run has not seen, embedded by its finished model, whatever has become of the rows it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distspectral.errors import ShardWidthError, UnknownColumnError
from distspectral.orchestration.opened_run import OpenedRun
from distspectral.stages.pack import PACK
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.holding import Hold
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import SOURCE
from distspectral.storage.rows.frame import Frame
from distspectral.storage.source.dataset import Source

if TYPE_CHECKING:
    from distspectral.stages.stage import Unfinished


def embed_new_rows(run: OpenedRun, source: Source, directory: str) -> Manifest:
    """Embed all of the rows.

    Args:
        run: finished.
        source: the rows, opened.
        directory: local path or URI of their output.

    Raises:
        ArtifactError: the model is missing or made from another config.
        ShardWidthError: the rows have another width than those trained on.
        UnknownColumnError: their columns are others, or in another order.
    """
    _require_kind(run, source)
    passage = run.recipe.passage
    for name in passage:
        run.require_inputs(name, passage)
    if PACK.name in passage:  # in the frame of the rows trained on
        source = source.framed(Frame.of_properties(run.chain.artifacts["train"].manifest().properties["frame"]))
    prints = {SOURCE: source.fingerprint()}
    made: dict[str, Artifact] = {}
    with Hold(Artifact(directory), run.held().work) as hold:
        for name in passage:
            folder = Artifact(directory)
            if len(passage) > 1:
                folder = folder.child(run.chain.stages[name].folder)
            output = run.chain.of_other_rows(name, prints, folder)
            if run.skips(output):
                manifest = output.artifact.manifest()
            else:
                run.engine.start([run.chain.stages[name]], source.n_values)
                manifest = run.stage_run(name, hold).whole(output, source, made)
            prints[name], made[name] = output.fingerprint, output.artifact
    return manifest


def embed_new_shards(run: OpenedRun, source: Source, directory: str, shards: range) -> Manifest | Unfinished:
    """Embed some of the shards into an output that several processes fill.

    Args:
        run: finished.
        source: the rows, opened.
        directory: local path or URI of their output.
        shards: their numbers.

    Raises:
        ConfigError: no shard has these numbers, or the run embeds what it packed, as a whole.
        ArtifactError: the model is missing or made from another config, or another result stands in the output.
        ShardWidthError: the rows have another width than those trained on.
        UnknownColumnError: their columns are others, or in another order.
    """
    name = run.parted_stage()
    _require_kind(run, source)
    run.require_inputs(name)
    output = run.chain.of_other_rows(name, {SOURCE: source.fingerprint()}, Artifact(directory))
    return run.part(output, source, shards, output.artifact)


def _require_kind(run: OpenedRun, source: Source) -> None:
    """Refuse other rows of another width or of other columns before a cluster is asked for."""
    if source.dim != run.recipe.dim:
        raise ShardWidthError(
            f"{source.shards[0].uri}: rows have width {source.dim}, the run {run.chain.root.uri} was trained on "
            f"{run.recipe.dim}; embed rows of the same kind"
        )
    _require_features(run, source)


def _require_features(run: OpenedRun, source: Source) -> None:
    """Refuse other rows whose columns, one for each feature, are others; a list may give them other names."""
    vectors = run.chain.artifact(PACK.name)
    known = vectors.manifest().properties.get("features") if vectors.has(MANIFEST) else None
    if not known or not source.features or list(source.features) == known:
        return
    if isinstance(source.config.column, str) or sorted(source.features) == sorted(known):
        pairs = enumerate(zip(source.features, known, strict=True))
        place, (found, expected) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
        raise UnknownColumnError(
            f"{source.shards[0].uri}: feature {place} is column {found!r}, the run {run.chain.root.uri} was trained "
            f"on {expected!r} there; rename the columns as they were, or, where they only have other names, list all "
            f"{len(known)} in the order trained on: --set 'data.column=[A, B, ...]'"
        )
