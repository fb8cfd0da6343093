from __future__ import annotations

from pathlib import Path

import pytest

from distspectral.errors import ConfigError, NoShardsError
from distspectral.storage.source.listing import find_files

PARQUET = frozenset({".parquet"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "_SUCCESS", ".a.parquet.crc", ".hidden.parquet", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "day=2").mkdir()
    (tmp_path / "day=2" / "c.PARQUET").write_bytes(b"x")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "d.parquet").write_bytes(b"x")
    return tmp_path


def names(paths: list[str], extensions: frozenset[str] | None = PARQUET) -> list[str]:
    return [file.name for file in find_files(paths, extensions)]


def test_folder_is_sorted_and_searched_recursively_without_hidden_names(folder: Path) -> None:
    assert names([str(folder)]) == ["a.parquet", "b.parquet", "day=2/c.PARQUET"]


def test_several_paths_keep_the_order_given(folder: Path) -> None:
    assert names([str(folder / "b.parquet"), str(folder / "a.parquet")]) == ["b.parquet", "a.parquet"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("[b-z].parquet", ["b.parquet"]),
        ("?.parquet", ["a.parquet", "b.parquet"]),
        ("*/*.PARQUET", ["day=2/c.PARQUET"]),
        ("**/*", ["a.parquet", "b.parquet", "day=2/c.PARQUET"]),
    ],
)
def test_globs(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names([f"{folder}/{pattern}"]) == expected
    assert names([f"file://{folder}/{pattern}"]) == (expected if "?" not in pattern else names([f"file://{folder}/"]))


def test_relative_glob_starts_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(["*.parquet"]) == ["a.parquet", "b.parquet"]


def test_file_whose_name_looks_like_a_glob_means_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].parquet").write_bytes(b"x")
    assert names([str(tmp_path / "a[1].parquet")]) == ["a[1].parquet"]


def test_explicit_format_takes_any_extension(folder: Path) -> None:
    assert "notes.txt" in names([str(folder)], None)


@pytest.mark.parametrize("path", ["", "missing", "*.npy", "notes.txt"])
def test_nothing_found_names_the_path_and_what_is_looked_for(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()
    asked = f"{folder}/{path or 'empty'}"
    with pytest.raises(NoShardsError) as caught:
        find_files([asked], PARQUET)
    assert str(caught.value).startswith(asked)
    assert ".parquet" in str(caught.value)


def test_unknown_scheme_is_refused_as_a_path(tmp_path: Path) -> None:
    with pytest.raises(NoShardsError, match="htp://host/folder: cannot be listed"):
        find_files(["htp://host/folder"], PARQUET)


def test_file_named_twice_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.parquet twice"):
        find_files([str(folder / "a.parquet"), str(folder)], PARQUET)


# ---- links --------------------------------------------------------------------------------------------------------


def test_a_loop_of_links_is_refused_and_named(folder: Path) -> None:
    (folder / "day=2" / "again").symlink_to(folder)
    with pytest.raises(ConfigError, match=r"day=2/again is the same folder as .*loop"):
        find_files([str(folder)], PARQUET)


def test_two_links_that_lead_to_each_other_are_refused(folder: Path) -> None:
    for name, other in (("x", "y"), ("y", "x")):
        (folder / name).mkdir()
        (folder / name / "to").symlink_to(folder / other)
    with pytest.raises(ConfigError, match="is the same folder as"):
        find_files([str(folder)], PARQUET)


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    (folder / "self.parquet").symlink_to(folder / "self.parquet")
    with pytest.raises(NoShardsError, match=r"self\.parquet"):
        find_files([str(folder)], PARQUET)


def test_a_link_out_of_the_folder_is_refused_unless_links_are_followed(folder: Path, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "d.parquet").write_bytes(b"x")
    (folder / "d.parquet").symlink_to(outside / "d.parquet")
    for pattern in (folder, folder / "*.parquet"):
        with pytest.raises(ConfigError, match=r"d\.parquet leads .* out of its folder, to .*outside.*follow_links"):
            find_files([str(pattern)], PARQUET)
    found = find_files([str(folder)], PARQUET, follow_links=True)
    assert [file.name for file in found] == ["a.parquet", "b.parquet", "d.parquet", "day=2/c.PARQUET"]
    assert names([str(folder / "d.parquet")]) == ["d.parquet"], "a file named by itself is meant"
    (folder / "d.parquet").unlink()
    (folder / "linked").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"linked/d\.parquet leads"):
        find_files([str(folder)], PARQUET)


def test_a_folder_that_is_a_link_itself_is_searched(folder: Path, tmp_path_factory) -> None:
    link = tmp_path_factory.mktemp("link") / "data"
    link.symlink_to(folder)
    assert names([str(link)]) == ["a.parquet", "b.parquet", "day=2/c.PARQUET"]


def test_one_file_under_two_names_is_refused(folder: Path) -> None:
    (folder / "e.parquet").symlink_to(folder / "a.parquet")
    with pytest.raises(ConfigError, match=r"e\.parquet twice, also as .*a\.parquet"):
        find_files([str(folder)], PARQUET)
    with pytest.raises(ConfigError, match="twice"):
        find_files([str(folder / "b.parquet"), str(folder / "day=2" / ".." / "b.parquet")], PARQUET)


def test_shards_of_one_name_in_two_folders_are_two_shards(folder: Path) -> None:
    (folder / "day=2" / "a.parquet").write_bytes(b"y")
    found = find_files([str(folder / "a.parquet"), str(folder / "day=2" / "a.parquet")], PARQUET)
    assert [file.name for file in found] == ["a.parquet", "a.parquet"]
    assert len({file.uri for file in found}) == 2


def test_a_link_to_nothing_is_a_lost_shard(folder: Path) -> None:
    (folder / "lost.parquet").symlink_to(folder / "moved.parquet")
    with pytest.raises(NoShardsError, match=r"lost\.parquet: is a symbolic link to .*moved\.parquet, which does not"):
        find_files([str(folder)], PARQUET)
