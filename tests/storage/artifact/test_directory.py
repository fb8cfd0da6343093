from __future__ import annotations

import json
from pathlib import Path

import pytest

from distspectral.errors import DamagedArtifactError, FingerprintMismatchError
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest, Shard
from tests.storage.outputs import finish, output
from tests.storage.s3 import S3Server


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"fsspec+memory:///{tmp_path.name}"


def test_finished_artifact_is_current_for_its_fingerprint_only(root: str) -> None:
    out = finish(root)
    assert out.artifact.is_current(out.fingerprint)
    assert out.artifact.require(out.fingerprint).n_rows == 3
    assert out.artifact.read_bytes("a") == b"abc"
    assert b"value: 0" in out.artifact.read_bytes(".config.yaml")
    assert not out.artifact.is_current(output(root, 1).fingerprint)
    with pytest.raises(FingerprintMismatchError, match="made from other inputs"):
        out.artifact.require(output(root, 1).fingerprint)


def test_missing_or_resized_file_is_damage(tmp_path: Path) -> None:
    out = finish(tmp_path)
    (tmp_path / "a").write_bytes(b"abcd")
    assert not out.artifact.is_current(out.fingerprint)
    with pytest.raises(DamagedArtifactError, match="/a: missing or of another size"):
        out.artifact.require(out.fingerprint)


def n_checking(s3: S3Server, n_shards: int) -> int:
    """Return how many requests it takes to find a finished artifact of so many shards whole, and one damaged."""
    artifact = Artifact(s3.uri(f"checked-{n_shards}"))
    shards = [Shard(name=f"part-{index}", n_rows=1, n_bytes=3) for index in range(n_shards)]
    for shard in shards:
        artifact.write_bytes(shard.name, b"abc")
    artifact.write_bytes("deep/file", b"a")
    manifest = Manifest(stage="stage", fingerprint="f", shards=shards, files={"deep/file": 1})
    artifact.write_json(MANIFEST, manifest.model_dump())
    before = len(s3.log)
    assert artifact.is_current("f")
    n_requests = len(s3.log) - before
    artifact.delete_file("part-3")
    with pytest.raises(DamagedArtifactError, match="/part-3"):
        artifact.require("f")
    return n_requests


def test_files_of_an_object_store_are_checked_by_listing(s3: S3Server) -> None:
    assert n_checking(s3, 10) == n_checking(s3, 20)


def test_unparsable_manifest_is_damage(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(DamagedArtifactError, match="cannot be parsed"):
        Artifact(str(tmp_path)).manifest()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "file:///etc/passwd"])
def test_a_manifest_whose_files_leave_its_directory_is_damage(tmp_path: Path, name: str) -> None:
    finish(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    for broken in (
        manifest | {"files": {name: 3}},
        manifest | {"shards": [{"name": name, "n_rows": 3, "n_bytes": 3}]},
    ):
        (tmp_path / MANIFEST).write_text(json.dumps(broken))
        with pytest.raises(DamagedArtifactError, match="cannot be parsed"):
            Artifact(str(tmp_path)).manifest()


def test_json_is_readable(tmp_path: Path) -> None:
    Artifact(str(tmp_path)).write_json("x.json", {"path": Path("a")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"path": "a"}


def test_json_has_no_nan_nor_infinity(tmp_path):
    artifact = Artifact(str(tmp_path))
    artifact.write_json("x.json", {"a": [float("nan"), 1.5], "b": float("inf"), "name": "\udcff"})
    strict = json.loads(artifact.read_bytes("x.json"), parse_constant=pytest.fail)
    assert strict == {"a": [None, 1.5], "b": None, "name": "\udcff"}
