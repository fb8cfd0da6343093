from __future__ import annotations

from pathlib import Path

import pytest

from distspectral.errors import ConfigError, NoShardsError
from distspectral.storage.listing import find_files

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
