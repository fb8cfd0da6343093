from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import IO, Any

import pytest

from distspectral.errors import (
    DamagedArtifactError,
    FingerprintMismatchError,
    MissingArtifactError,
    OutputNotWritableError,
)
from distspectral.storage.artifact.directory import BUILDING, MANIFEST, RECEIPTS, Artifact
from distspectral.storage.artifact.manifest import fingerprint
from distspectral.storage.artifact.output import Output


def output(root: Path | str, value: int = 0) -> Output:
    config = {"value": value}
    return Output(Artifact(str(root)), "stage", fingerprint("stage", config, {}), config, {})


def three_bytes(stream: IO[bytes]) -> None:
    stream.write(b"abc")


def finish(root: Path | str, value: int = 0) -> Output:
    out = output(root, value)
    out.begin()
    out.commit([out.artifact.write_shard("a", 3, three_bytes)], {}, {})
    return out


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"fsspec+memory:///{tmp_path.name}"


def test_finished_artifact_is_current_for_its_fingerprint_only(root: str) -> None:
    out = finish(root)
    assert out.artifact.is_current(out.fingerprint)
    assert out.artifact.require(out.fingerprint).n_rows == 3
    assert out.artifact.read_bytes("a") == b"abc"
    assert b"value: 0" in out.artifact.read_bytes("config.yaml")
    assert not out.artifact.is_current(output(root, 1).fingerprint)
    with pytest.raises(FingerprintMismatchError, match="made from other inputs"):
        out.artifact.require(output(root, 1).fingerprint)


def test_interrupted_stage_finds_its_shards_again(root: str) -> None:
    out = output(root)
    assert out.begin() == {}
    shard = out.artifact.write_shard("a", 3, three_bytes, {"mean": 0.1})
    assert output(root).begin() == {"a": shard}
    with pytest.raises(MissingArtifactError):
        out.artifact.manifest()


def test_another_config_starts_afresh(root: str) -> None:
    finish(root)
    other = output(root, 1)
    assert other.begin() == {}
    assert not other.artifact.has("a")
    assert not other.artifact.has(MANIFEST)
    assert other.artifact.has(BUILDING)


def test_shard_may_fill_in_its_details_while_it_is_written(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.begin()
    details: dict[str, int] = {}

    def write(stream: IO[bytes]) -> None:
        three_bytes(stream)
        details["seen"] = 3

    out.artifact.write_shard("a", 3, write, details)
    assert out.begin()["a"].details == {"seen": 3}


def test_full_disk_is_named_and_leaves_no_file(root: str) -> None:
    out = output(root)
    out.begin()

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputNotWritableError, match="/a: no space left"):
        out.artifact.write_shard("a", 1, fail)
    assert not out.artifact.has("a")
    assert out.begin() == {}


def test_receipt_without_its_shard_does_not_count(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.begin()
    for name in ("a", "b", "c"):
        out.artifact.write_shard(name, 3, three_bytes)
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_bytes(b"ab")
    assert set(out.begin()) == {"c"}


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    out = output(tmp_path / "run")
    out.begin()
    out.artifact.write_shard("a", 3, three_bytes)
    left_over = [tmp_path / "run" / f".b.{'0' * 32}.tmp", tmp_path / "run" / RECEIPTS / f".b.json.{'f' * 32}.tmp"]
    for path in left_over:
        path.touch()
    (tmp_path / "run" / ".mine.tmp").touch()
    assert set(out.begin()) == {"a"}
    assert not any(path.exists() for path in left_over)
    assert (tmp_path / "run" / ".mine.tmp").exists()


def test_stage_killed_before_its_first_file_was_whole_can_begin_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{BUILDING}.{'0' * 32}.tmp").touch()
    assert output(tmp_path / "run").begin() == {}


class DiesAfterManifest:
    """A file system whose process is killed at the second removal."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._n_removed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def delete_file(self, path: str) -> None:
        if self._n_removed:
            raise KeyboardInterrupt
        self._n_removed += 1
        self._inner.delete_file(path)

    def delete_dir_contents(self, path: str) -> None:
        raise KeyboardInterrupt


def test_clearing_that_was_interrupted_can_begin_again(tmp_path: Path) -> None:
    finish(tmp_path)
    dying = output(tmp_path, 1)
    dying.artifact.filesystem = DiesAfterManifest(dying.artifact.filesystem)
    with pytest.raises(KeyboardInterrupt):
        dying.begin()
    assert not (tmp_path / MANIFEST).exists()
    assert (tmp_path / "a").exists()
    assert output(tmp_path, 1).begin() == {}
    assert not (tmp_path / "a").exists()


def test_missing_or_resized_file_is_damage(tmp_path: Path) -> None:
    out = finish(tmp_path)
    (tmp_path / "a").write_bytes(b"abcd")
    assert not out.artifact.is_current(out.fingerprint)
    with pytest.raises(DamagedArtifactError, match="/a: missing or of another size"):
        out.artifact.require(out.fingerprint)


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


def test_a_damaged_receipt_is_none_and_a_damaged_start_begins_anew(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.begin()
    for name in ("a", "b"):
        out.artifact.write_shard(name, 3, three_bytes)
    (tmp_path / RECEIPTS / "a.json").write_text('{"name": "a", "n_ro')
    assert set(out.begin()) == {"b"}
    (tmp_path / BUILDING).write_text("{")
    assert out.begin() == {}


def test_foreign_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputNotWritableError, match=r"thesis\.tex"):
        output(tmp_path).begin()
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/nowhere"])
def test_places_that_cannot_be_written_are_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritableError):
        output(where if where.startswith("/") else tmp_path / where).begin()


def test_fingerprint_follows_stage_config_and_inputs_but_not_key_order() -> None:
    base = fingerprint("stage", {"a": 1, "b": 2}, {"x": "1"})
    assert fingerprint("stage", {"b": 2, "a": 1}, {"x": "1"}) == base
    assert fingerprint("other", {"a": 1, "b": 2}, {"x": "1"}) != base
    assert fingerprint("stage", {"a": 1, "b": 3}, {"x": "1"}) != base
    assert fingerprint("stage", {"a": 1, "b": 2}, {"x": "2"}) != base


def test_json_is_readable(tmp_path: Path) -> None:
    Artifact(str(tmp_path)).write_json("x.json", {"path": Path("a")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"path": "a"}
