"""What stands in a run's root is found by its kind, and what does not belong together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from distspectral.errors import ConfigError, DamagedArtifactError, FingerprintMismatchError, MissingArtifactError
from distspectral.stages import STAGES
from distspectral.stages.finished_run import FinishedRun
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output


def commit(root: Path, stage: str, fingerprint: str, *read: str) -> Manifest:
    """Write an artifact of one file, which read others whose fingerprint is ``first``."""
    place = Artifact(str(root)).child(STAGES["spectral"][stage].folder)
    output = Output(place, stage, fingerprint, {}, dict.fromkeys(read, "first"))
    output.begin()
    output.artifact.write_bytes("file", b"four")
    return output.commit([], {}, {}, files=("file",))


@pytest.mark.parametrize("kind", STAGES)
def test_a_run_is_known_by_what_only_its_kind_writes(tmp_path: Path, kind: str) -> None:
    for stage in STAGES[kind].values():
        (tmp_path / stage.folder).mkdir()
        (tmp_path / stage.folder / MANIFEST).write_text("{}")
    run = FinishedRun(Artifact(str(tmp_path)))
    assert run.kind == kind
    assert {name: run.artifact(name).path for name in STAGES[kind]} == {
        name: str(tmp_path / stage.folder) for name, stage in STAGES[kind].items()
    }
    run.require_kind(kind, "map")
    with pytest.raises(ConfigError, match=f"^{tmp_path}: a run of objective {kind} has no map; .*objective another$"):
        run.require_kind("another", "map")


def test_where_no_run_stands_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="nowhere: does not exist"):
        FinishedRun(Artifact(str(tmp_path / "nowhere")))
    commit(tmp_path, "pack", "first")  # which runs of every kind write
    with pytest.raises(MissingArtifactError, match="holds no finished run"):
        FinishedRun(Artifact(str(tmp_path)))


def test_what_a_stage_has_read_must_stand_there_whole(tmp_path: Path) -> None:
    made = commit(tmp_path, "tree", "first")
    commit(tmp_path, "embed", "first", "tree")
    run = FinishedRun(Artifact(str(tmp_path)))
    assert run.require("tree") == run.require_read("tree", "embed") == made
    commit(tmp_path, "tree", "second")
    with pytest.raises(
        FingerprintMismatchError, match=f"{tmp_path}/output: was made from another {tmp_path}/tree than .* brings them"
    ):
        run.require_read("tree", "embed")
    commit(tmp_path, "tree", "first")
    (tmp_path / "tree/file").write_bytes(b"three")
    with pytest.raises(DamagedArtifactError, match="file: missing or of another size"):
        run.require_read("tree", "embed")


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("graph", ("neighbors", "graph")),
        ("reweight", ("neighbors", "reweight")),
        ("siamese_graph", ("siamese_neighbors", "siamese_graph")),
    ],
)
def test_the_graph_is_the_one_that_the_model_was_trained_on(
    tmp_path: Path, read: str, expected: tuple[str, ...]
) -> None:
    commit(tmp_path, "calibrate", "first", "pack", read)
    run = FinishedRun(Artifact(str(tmp_path)))
    assert [artifact.uri for artifact in run.graph()] == [run.artifact(stage).uri for stage in expected]
