from __future__ import annotations

from pathlib import Path

import pytest

from distspectral.storage.artifact import reuse
from distspectral.storage.artifact.directory import Artifact, void
from distspectral.storage.artifact.manifest import Shard, fingerprint
from distspectral.storage.artifact.output import Output

IDENTITY = {"embed": {"columns": ["cluster"]}}


def output(folder: Path, source: str, identity=IDENTITY, model: str = "model") -> Output:
    inputs = {"source": source, "calibrate": model}
    return Output(
        Artifact(str(folder / "out")), "embed", fingerprint("embed", identity, inputs), {}, inputs, dict(identity)
    )


def fill(out: Output, sources: dict[str, str], n_written: list[str] | None = None) -> None:
    """Make what ``reuse.begin`` does not return; a shard's content is its source."""
    done = reuse.begin(out, sources)
    for name, source in sources.items():
        if name not in done:
            if n_written is not None:
                n_written.append(source)
            n_bytes = out.artifact.write_file(name, lambda stream, text=source: void(stream.write(text.encode())))
            done[name] = out.artifact.write_receipt(
                Shard(name=name, n_rows=1, n_bytes=n_bytes, details={reuse.SOURCE: source})
            )
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
    fill(output(tmp_path, "before"), numbered("a", "b", "c"))
    made: list[str] = []
    fill(output(tmp_path, "after"), numbered(*now), made)
    assert made == written
    assert contents(tmp_path) == numbered(*now)
    manifest = output(tmp_path, "after").artifact.manifest()
    assert manifest.fingerprint == output(tmp_path, "after").fingerprint
    assert [shard.name for shard in manifest.shards] == list(numbered(*now))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*numbered(*now), "manifest.json", "config.yaml"}


@pytest.mark.parametrize("change", [{"identity": {"embed": {"columns": ["distance"]}}}, {"model": "another"}])
def test_another_config_or_model_makes_all_anew(tmp_path, change):
    fill(output(tmp_path, "before"), numbered("a", "b"))
    made: list[str] = []
    fill(output(tmp_path, "after", **change), numbered("a", "b", "c"), made)
    assert made == ["a", "b", "c"]


def test_a_shard_that_was_damaged_is_made_again(tmp_path):
    fill(output(tmp_path, "before"), numbered("a", "b"))
    (tmp_path / "out" / "part-0").write_text("short of it")
    made: list[str] = []
    fill(output(tmp_path, "after"), numbered("a", "b", "c"), made)
    assert made == ["a", "c"]
    assert contents(tmp_path) == numbered("a", "b", "c")


def test_a_shard_that_is_gone_is_made_again_and_the_others_renamed(tmp_path):
    fill(output(tmp_path, "before"), numbered("a", "b"))
    (tmp_path / "out" / "part-0").unlink()
    made: list[str] = []
    fill(output(tmp_path, "after"), numbered("new", "a", "b"), made)
    assert made == ["new", "a"]
    assert contents(tmp_path) == numbered("new", "a", "b")


def test_sources_that_nothing_tells_apart_are_not_followed(tmp_path):
    fill(output(tmp_path, "before"), numbered("a", "a"))
    made: list[str] = []
    fill(output(tmp_path, "after"), numbered("a", "a", "b"), made)
    assert made == ["a", "a", "b"]


def test_renaming_that_is_interrupted_makes_all_anew_and_leaves_nothing_behind(tmp_path, monkeypatch):
    fill(output(tmp_path, "before"), numbered("a", "b"))
    file_path = Artifact.file_path

    def dies(self, name):
        if name == "part-2.moved":
            raise KeyboardInterrupt
        return file_path(self, name)

    with monkeypatch.context() as broken:
        broken.setattr(Artifact, "file_path", dies)
        with pytest.raises(KeyboardInterrupt):
            reuse.begin(output(tmp_path, "after"), numbered("new", "a", "b"))
    assert (tmp_path / "out" / "part-1.moved").exists()
    made: list[str] = []
    fill(output(tmp_path, "after"), numbered("new", "a", "b"), made)
    assert made == ["new", "a", "b"]
    assert contents(tmp_path) == numbered("new", "a", "b")


def test_kept_shards_survive_a_second_interruption(tmp_path):
    fill(output(tmp_path, "before"), numbered("a", "b"))
    assert set(reuse.begin(output(tmp_path, "after"), numbered("a", "b", "c"))) == {"part-0", "part-1"}
    assert set(reuse.begin(output(tmp_path, "after"), numbered("a", "b", "c"))) == {"part-0", "part-1"}
