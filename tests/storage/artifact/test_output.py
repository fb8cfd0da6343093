from __future__ import annotations

import errno
import functools
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest

from distspectral.errors import FingerprintMismatchError, MissingArtifactError, OutputNotWritableError
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import fingerprint
from distspectral.storage.artifact.output import BUILDING, SOURCE, Output
from distspectral.storage.artifact.quarantine import FOLDER, quarantine_files, write_quarantine
from distspectral.storage.artifact.receipts import RECEIPTS, write_shard
from tests.storage.outputs import finish, output, three_bytes


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"fsspec+memory:///{tmp_path.name}"


def test_interrupted_stage_finds_its_shards_again(root: str) -> None:
    out = output(root)
    assert out.begin() == {}
    shard = write_shard(out.artifact, "a", three_bytes, {"mean": 0.1})
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


def test_full_disk_is_named_and_leaves_no_file(root: str) -> None:
    out = output(root)
    out.begin()

    def fail(stream: IO[bytes]) -> int:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputNotWritableError, match="/a: no space left"):
        write_shard(out.artifact, "a", fail)
    assert not out.artifact.has("a")
    assert out.begin() == {}


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    out = output(tmp_path / "run")
    out.begin()
    write_shard(out.artifact, "a", three_bytes)
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


class DiesAt:
    """A file system whose process is killed at the second call of one of its methods."""

    def __init__(self, inner: Any, method: str) -> None:
        self._inner, self._method, self._n_calls = inner, method, 0

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._n_calls += 1
            if self._n_calls == 2:
                raise KeyboardInterrupt
        return getattr(self._inner, name)


def dying(out: Output, method: str) -> Output:
    out.artifact.filesystem = DiesAt(out.artifact.filesystem, method)
    return out


def test_clearing_that_was_interrupted_can_begin_again(tmp_path: Path) -> None:
    finish(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        dying(output(tmp_path, 1), "delete_file").begin()
    assert not (tmp_path / MANIFEST).exists()
    assert (tmp_path / "a").exists()
    assert output(tmp_path, 1).begin() == {}
    assert not (tmp_path / "a").exists()


def test_a_damaged_receipt_is_none_and_a_damaged_start_begins_anew(tmp_path: Path) -> None:
    out = output(tmp_path)
    out.begin()
    for name in ("a", "b"):
        write_shard(out.artifact, name, three_bytes)
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


# ---- a source that gained or lost shards ----------------------------------------------------------------------------

IDENTITY = {"embed": {"columns": ["cluster"]}}


def followed(folder: Path, source: str, identity=IDENTITY, model: str = "model") -> Output:
    inputs = {"source": source, "calibrate": model}
    return Output(
        Artifact(str(folder / "out")), "embed", fingerprint("embed", identity, inputs), {}, inputs, dict(identity)
    )


def write_text(text: str, stream: IO[bytes]) -> int:
    return stream.write(text.encode())


def fill(out: Output, sources: dict[str, str], n_written: list[str] | None = None) -> None:
    """Make what ``begin`` does not return; a shard's content is its source."""
    done = out.begin(sources)
    for name, source in sources.items():
        if name not in done:
            if n_written is not None:
                n_written.append(source)
            write = functools.partial(write_text, source)
            done[name] = write_shard(out.artifact, name, write, {SOURCE: source})
    out.commit([done[name] for name in sources], {}, {})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "out").glob("part-*"))}


def numbered(*sources: str) -> dict[str, str]:
    return {f"part-{index}": source for index, source in enumerate(sources)}


@pytest.mark.parametrize(
    ("now", "written"),
    [
        (("a", "b", "c", "d"), ["d"]),  # one more
        (("new", "a", "b", "c"), ["new"]),  # one more before the others: all are renamed
        (("a", "c"), []),  # one less
        (("a",), []),  # the last ones less
        (("c", "a", "b"), []),  # in another order, each name taken by another
        (("a", "other b", "c"), ["other b"]),  # one changed
    ],
)
def test_only_shards_of_new_sources_are_made(tmp_path, now, written):
    fill(followed(tmp_path, "before"), numbered("a", "b", "c"))
    made: list[str] = []
    fill(followed(tmp_path, "after"), numbered(*now), made)
    assert made == written
    assert contents(tmp_path) == numbered(*now)
    manifest = followed(tmp_path, "after").artifact.manifest()
    assert manifest.fingerprint == followed(tmp_path, "after").fingerprint
    assert [shard.name for shard in manifest.shards] == list(numbered(*now))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*numbered(*now), ".manifest.json", ".config.yaml"}


@pytest.mark.parametrize("change", [{"identity": {"embed": {"columns": ["distance"]}}}, {"model": "another"}])
def test_another_config_or_model_makes_all_anew(tmp_path, change):
    fill(followed(tmp_path, "before"), numbered("a", "b"))
    made: list[str] = []
    fill(followed(tmp_path, "after", **change), numbered("a", "b", "c"), made)
    assert made == ["a", "b", "c"]


def test_a_shard_that_was_damaged_is_made_again(tmp_path):
    fill(followed(tmp_path, "before"), numbered("a", "b"))
    (tmp_path / "out" / "part-0").write_text("short of it")
    made: list[str] = []
    fill(followed(tmp_path, "after"), numbered("a", "b", "c"), made)
    assert made == ["a", "c"]
    assert contents(tmp_path) == numbered("a", "b", "c")


def test_a_shard_that_is_gone_is_made_again_and_the_others_renamed(tmp_path):
    fill(followed(tmp_path, "before"), numbered("a", "b"))
    (tmp_path / "out" / "part-0").unlink()
    made: list[str] = []
    fill(followed(tmp_path, "after"), numbered("new", "a", "b"), made)
    assert made == ["new", "a"]
    assert contents(tmp_path) == numbered("new", "a", "b")


def test_sources_that_nothing_tells_apart_are_not_followed(tmp_path):
    fill(followed(tmp_path, "before"), numbered("a", "a"))
    made: list[str] = []
    fill(followed(tmp_path, "after"), numbered("a", "a", "b"), made)
    assert made == ["a", "a", "b"]


def test_renaming_that_is_interrupted_makes_all_anew_and_leaves_nothing_behind(tmp_path):
    fill(followed(tmp_path, "before"), numbered("a", "b"))
    with pytest.raises(KeyboardInterrupt):
        dying(followed(tmp_path, "after"), "move").begin(numbered("new", "a", "b"))
    assert (tmp_path / "out" / "part-1.moved").exists()
    made: list[str] = []
    fill(followed(tmp_path, "after"), numbered("new", "a", "b"), made)
    assert made == ["new", "a", "b"]
    assert contents(tmp_path) == numbered("new", "a", "b")


def test_kept_shards_survive_a_second_interruption(tmp_path):
    fill(followed(tmp_path, "before"), numbered("a", "b"))
    assert set(followed(tmp_path, "after").begin(numbered("a", "b", "c"))) == {"part-0", "part-1"}
    assert set(followed(tmp_path, "after").begin(numbered("a", "b", "c"))) == {"part-0", "part-1"}


def test_what_was_left_out_of_a_kept_shard_is_renamed_with_it_and_the_rest_is_removed(tmp_path):
    out = followed(tmp_path, "before")
    out.begin()
    shards = []
    for name, source in (("part-0.arrow", "a"), ("part-1.arrow", "b")):
        left_out = write_quarantine(out.artifact, name, [pa.record_batch({"reason": [source]})])
        write = functools.partial(write_text, source)
        shards.append(write_shard(out.artifact, name, write, {SOURCE: source, **left_out}))
    out.commit(shards, {}, {})
    (kept,) = followed(tmp_path, "after").begin({"part-0.arrow": "new", "part-2.arrow": "b"}).values()
    assert quarantine_files([kept]) == (f"{FOLDER}/part-2.arrow",)
    assert [path.name for path in (tmp_path / "out" / FOLDER).iterdir()] == ["part-2.arrow"]
    assert pa.ipc.open_file(tmp_path / "out" / quarantine_files([kept])[0]).read_all()["reason"].to_pylist() == ["b"]


# ---- several processes, one output ----------------------------------------------------------------------------------


def test_who_comes_later_sees_what_is_done_and_leaves_files_in_the_making_alone(tmp_path):
    assert output(tmp_path / "out").begin(shared=True) == {}
    write_shard(output(tmp_path / "out").artifact, "a", three_bytes)
    unfinished = tmp_path / "out" / f".b.{'0' * 32}.tmp"
    unfinished.touch()
    assert set(output(tmp_path / "out").begin(shared=True)) == {"a"}
    assert unfinished.exists()


def test_another_result_is_not_removed_where_processes_share(tmp_path):
    output(tmp_path / "out", 1).begin(shared=True)
    with pytest.raises(FingerprintMismatchError, match=r"out: holds a result made from other inputs.*another place"):
        output(tmp_path / "out").begin(shared=True)
    output(tmp_path / "out", 1).commit([], {}, {})
    with pytest.raises(FingerprintMismatchError):
        output(tmp_path / "out").begin(shared=True)


class FinishesMeanwhile(DiesAt):
    """A file system on which another process finishes the output once this one has looked at the directory."""

    def create_dir(self, path: str, recursive: bool) -> None:
        out = output(path)
        out.commit([write_shard(out.artifact, "a", three_bytes)], {}, {})


def test_a_result_finished_between_two_looks_counts_as_done(tmp_path):
    output(tmp_path).begin(shared=True)
    late = output(tmp_path)
    late.artifact.filesystem = FinishesMeanwhile(late.artifact.filesystem, "none")
    assert set(late.begin(shared=True)) == {"a"}
    assert late.artifact.is_current(late.fingerprint)
    assert not late.artifact.has(BUILDING)


def test_a_result_that_is_finished_already_counts_as_done(tmp_path):
    output(tmp_path / "out").begin(shared=True)
    finish(tmp_path / "out")
    before = {path: path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    assert set(output(tmp_path / "out").begin(shared=True)) == {"a"}
    assert {path: path.stat().st_ino for path in (tmp_path / "out").iterdir()} == before, "it is left as it is"


def test_foreign_files_are_refused_where_processes_share(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.pdf").touch()
    with pytest.raises(OutputNotWritableError, match=r"thesis\.pdf"):
        output(tmp_path / "out").begin(shared=True)


def test_a_file_in_the_place_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputNotWritableError, match="out"):
        output(tmp_path / "out").begin(shared=True)


def test_a_new_source_that_nothing_tells_from_a_kept_one_is_not_taken_for_it(tmp_path):
    fill(followed(tmp_path, "before"), numbered("a"))
    made: list[str] = []
    fill(followed(tmp_path, "after"), numbered("a", "a", "b"), made)
    assert made == ["a", "a", "b"]
