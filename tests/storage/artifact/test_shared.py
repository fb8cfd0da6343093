from __future__ import annotations

import pytest

from distspectral.errors import FingerprintMismatchError, OutputNotWritableError
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Shard
from distspectral.storage.artifact.output import Output
from distspectral.storage.artifact.shared import join


def output(folder, fingerprint="one"):
    return Output(Artifact(str(folder / "out")), "embed", fingerprint, {}, {})


def receipt(out, name):
    out.artifact.write_file(name, lambda stream: None)
    return out.artifact.write_receipt(Shard(name=name, n_rows=0, n_bytes=0))


def test_who_comes_later_sees_what_is_done_and_leaves_files_in_the_making_alone(tmp_path):
    assert join(output(tmp_path)) == {}
    receipt(output(tmp_path), "a")
    unfinished = tmp_path / "out" / f".b.{'0' * 32}.tmp"
    unfinished.touch()
    assert set(join(output(tmp_path))) == {"a"}
    assert unfinished.exists()


def test_another_result_is_not_removed(tmp_path):
    join(output(tmp_path, "another"))
    with pytest.raises(FingerprintMismatchError, match=r"out: holds a result made from other inputs.*--output"):
        join(output(tmp_path))
    output(tmp_path, "another").commit([], {}, {})
    with pytest.raises(FingerprintMismatchError):
        join(output(tmp_path))


def test_a_result_finished_meanwhile_counts_as_done(tmp_path):
    join(output(tmp_path))
    output(tmp_path).commit([receipt(output(tmp_path), "a")], {}, {})
    assert set(join(output(tmp_path))) == {"a"}


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.pdf").touch()
    with pytest.raises(OutputNotWritableError, match=r"thesis\.pdf"):
        join(output(tmp_path))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputNotWritableError, match="out"):
        join(output(tmp_path))
