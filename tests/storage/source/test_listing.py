from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from distspectral.errors import ConfigError, MissingDependencyError, NoShardsError, TableError
from distspectral.storage.filesystems import require_answer
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
    assert names([f"file://{folder}/{pattern}"]) == expected


def test_relative_glob_starts_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(["*.parquet"]) == ["a.parquet", "b.parquet"]


def test_file_whose_name_looks_like_a_glob_means_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].parquet").write_bytes(b"x")
    assert names([str(tmp_path / "a[1].parquet")]) == ["a[1].parquet"]


def test_explicit_format_takes_any_extension(folder: Path) -> None:
    assert "notes.txt" in names([str(folder)], None)


@pytest.mark.parametrize("path", ["", "*.npy", "notes.txt"])
def test_nothing_found_names_the_path_and_what_is_looked_for(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()
    asked = f"{folder}/{path or 'empty'}"
    with pytest.raises(NoShardsError) as caught:
        find_files([asked], PARQUET)
    assert str(caught.value).startswith(asked)
    assert ".parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htp://host/folder", "is no place that can be used .*s3://BUCKET/FOLDER"),
        ("https://host/a.parquet", "download what lies elsewhere"),
        ("abfs://container/folder", "abfs://CONTAINER@ACCOUNT"),
        ("file://host/folder", "Unsupported hostname"),
        ("s3:///folder", "Missing bucket"),
    ],
)
def test_a_uri_that_names_no_place_is_refused_with_what_does(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{uri}: .*{message}"):
        find_files([uri], PARQUET)


def test_a_hub_that_cannot_be_read_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="hf://datasets/a/b: huggingface_hub is not installed"):
        find_files(["hf://datasets/a/b"], PARQUET)


@pytest.mark.parametrize("name", ["a b", "é", "a#b", "a?b", "50%", "a+b", "100%25", "x=1&y=2", "[1]", "it's"])
def test_names_of_any_characters_are_found_by_path_and_by_uri(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.parquet").write_bytes(b"x")
    typed = f"{folder}/".replace("%25", "%2525")
    globs = [] if name == "[1]" else [f"{folder}/*", f"file://{typed}*"]
    for path in (str(folder), f"{folder}/{name}.parquet", folder.as_uri(), f"file://{typed}", *globs):
        assert [file.path for file in find_files([path], PARQUET)] == [f"{folder}/{name}.parquet"], path


def test_a_missing_path_does_not_exist_and_another_says_what_lies_there(folder: Path) -> None:
    for path in ("absent", "absent/*.parquet"):
        with pytest.raises(NoShardsError, match=rf"{path.replace('*', '.*')}: (.*absent )?does not exist"):
            find_files([f"{folder}/{path}"], PARQUET)
    with pytest.raises(NoShardsError, match=r"names no shard; looked for \.npy .*found 2 of \.parquet, 1 of \.txt"):
        find_files([f"{folder}/*"], frozenset({".npy"}))


def test_partitions_whose_column_begins_with_an_underscore_are_read(folder: Path) -> None:
    (folder / "_day=1").mkdir()
    (folder / "_day=1" / "e.parquet").write_bytes(b"x")
    assert "_day=1/e.parquet" in names([str(folder)])


# ---- tables -------------------------------------------------------------------------------------------------------


def table(folder: Path, *files: str) -> Path:
    for file in files:
        place = folder / "lake" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
    return folder / "lake"


TABLES = {
    "Delta": (("_delta_log/00000.json", "day=1/a.parquet"), "DeltaTable"),
    "Iceberg": (("metadata/v1.metadata.json", "data/day=1/a.parquet"), "to_arrow_batch_reader"),
    "Hudi": ((".hoodie/hoodie.properties", "day=1/a.parquet"), "spark.read"),
    "Lance": (("_versions/1.manifest", "data/a.lance"), "lance.dataset"),
    "Zarr": (("zarr.json", "c/0.parquet"), "numpy.save"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_refused_with_a_way_out_from_above_and_from_inside(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    files, way_out = TABLES[kind]
    root = table(tmp_path, *files)
    inside = (root / files[1]).parent
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(inside)
    for path in (
        root,
        tmp_path,
        inside,
        *([] if kind == "Lance" else [link]),
        f"{root}/**",
        f"file://{tmp_path}/l*/**",
    ):
        with pytest.raises(TableError, match=f"lake: is a {kind} table, .*{way_out}"):
            find_files([str(path)], PARQUET)


def test_a_table_beside_what_is_asked_for_is_no_hindrance_and_its_files_can_be_named(tmp_path: Path) -> None:
    root = table(tmp_path, "_delta_log/00000.json", "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"x")
    assert names([f"{tmp_path}/*.parquet"]) == ["b.parquet"]
    assert names([f"{root}/a.parquet"]) == ["a.parquet"]


def test_a_saved_hugging_face_dataset_is_its_own_files(tmp_path: Path) -> None:
    state = {"_data_files": [{"filename": "data-0.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    (tmp_path / "data-0.arrow").write_bytes(b"x")
    arrow = frozenset({".arrow"})
    assert names([str(tmp_path)], arrow) == ["data-0.arrow"]
    (tmp_path / "cache-1.arrow").write_bytes(b"x")
    with pytest.raises(TableError, match=r"cache-1\.arrow: .*cache of Dataset\.map; remove it"):
        find_files([str(tmp_path)], arrow)
    assert names([f"{tmp_path}/data-*.arrow"], arrow) == ["data-0.arrow"]
    (tmp_path / "cache-1.arrow").unlink()
    (tmp_path / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(TableError, match="flatten_indices"):
        find_files([str(tmp_path)], arrow)


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


def test_a_bucket_that_is_refused_is_told_with_where_credentials_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> object:
        raise PermissionError("AWS Error ACCESS_DENIED during HeadObject operation\nrequest id: 7")

    monkeypatch.setattr("distspectral.storage.source.listing._list", refused)
    monkeypatch.setattr("distspectral.storage.source.listing.require_answer", lambda uri: None)
    message = r"s3://b/x: cannot be listed \(AWS Error ACCESS_DENIED.*\); check the place, .*by AWS_ACCESS_KEY_ID and"
    with pytest.raises(NoShardsError, match=message) as told:
        find_files(["s3://b/x"], None)
    assert "\n" not in str(told.value)


def endpoint(port: int) -> str:
    return f"s3://b/x?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


def test_an_endpoint_nobody_listens_at_is_refused_before_the_many_tries(
    monkeypatch: pytest.MonkeyPatch, secrets: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr("distspectral.storage.source.listing._list", lambda path: pytest.fail("asked patiently"))
    with pytest.raises(NoShardsError, match=r"s3://b/x.*cannot be listed \(.*connect.*check the place, and the cred"):
        find_files([endpoint(port)], None)


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_endpoint_that_answers_with_an_error_is_left_to_who_asks_next(status: int, secrets: None) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        require_answer(endpoint(server.server_port))
        server.shutdown()


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> object:
        raise RuntimeError("Name or service not known\nand more")

    monkeypatch.setattr("distspectral.storage.source.listing._list", refused)
    monkeypatch.setattr("distspectral.storage.source.listing.require_answer", lambda uri: None)
    with pytest.raises(
        NoShardsError, match=r"^hf://datasets/a/b: cannot be listed \(Name or service not known\); .*HF_TOK"
    ):
        find_files(["hf://datasets/a/b"], None)
