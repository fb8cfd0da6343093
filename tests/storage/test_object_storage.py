from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from distspectral.config import load_config
from distspectral.config.check import check_writable
from distspectral.errors import ConfigError, TableError
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.storage.artifact.cache import NodeCache
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.filesystems import PatientS3FileSystem, join, resolve
from distspectral.storage.source.listing import find_files
from tests import kill
from tests.runs import N_ROWS, write_run
from tests.storage.s3 import Request, S3Server, remote_run

CUT_S = 3.0


class CuttingObserver(SilentObserver):
    """Cuts the server when a stage begins and, once, in the middle of its items."""

    def __init__(self, server: S3Server) -> None:
        self.server, self.stages = server, 0
        self.cut_in = {"packing": 2, "embedding": 1, "training": 20}

    def progress(self, description: str, done: int, total: int) -> None:
        if self.cut_in.get(description) == done:
            del self.cut_in[description]
            self.server.cut(CUT_S)


def output_rows(root: Artifact) -> list[dict[str, Any]]:
    names = [shard.name for shard in root.child("output").manifest().shards]
    read = [pq.read_table(root.child("output").file_path(name), filesystem=root.filesystem) for name in names]
    return [row for table in read for row in table.to_pylist()]


def test_options_of_a_uri_stay_at_its_end(s3: S3Server) -> None:
    assert join("s3://b/run?region=x", "vectors") == "s3://b/run/vectors?region=x"
    assert join("runs/what?/", "vectors") == "runs/what?/vectors"
    child = Artifact(s3.uri("options")).child("vectors")
    assert child.path == "bucket/options/vectors"
    assert child.uri == s3.uri("options/vectors")


NAMES = ["a b", "é", "a#b", "a?b", "50%", "a+b", "it's", "[1]", "a&b=c"]


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_any_characters_are_read_and_written(s3: S3Server, name: str) -> None:
    filesystem, _ = resolve(s3.uri("names"))
    for key in (f"bucket/names/{name}/{name}.parquet", f"bucket/names/{name}/other.txt"):
        with filesystem.open_output_stream(key) as stream:
            stream.write(b"x")
    for written in (name, quote(name)):
        for place in (f"names/{written}", f"names/{written}/", f"names/{written}/{written}.parquet"):
            (found,) = find_files([s3.uri(place)], frozenset({".parquet"}))
            assert found.path == f"bucket/names/{name}/{name}.parquet"
            assert found.open().read() == b"x"
    (globbed,) = find_files([s3.uri(f"names/{quote(name)}/*")], frozenset({".parquet"}))
    assert globbed.path == found.path
    root = Artifact(s3.uri(f"names/{name}/root"))
    root.child("model").write_json("a.json", 1)
    assert root.child("model").file_path("a.json") == f"bucket/names/{name}/root/model/a.json"
    assert Artifact(s3.uri(f"names/{quote(name)}/root/model")).read_json("a.json") == 1


def test_a_table_in_a_bucket_is_refused_from_above_and_from_inside(s3: S3Server) -> None:
    filesystem, _ = resolve(s3.uri("lakes"))
    for key in (
        "delta/_delta_log/0.json",
        "delta/day=1/a.parquet",
        "ice/metadata/v.metadata.json",
        "ice/data/a.parquet",
    ):
        with filesystem.open_output_stream(f"bucket/lakes/{key}") as stream:
            stream.write(b"x")
    for place, kind in (("", "Delta"), ("delta", "Delta"), ("delta/day=1", "Delta"), ("ice/data", "Iceberg")):
        with pytest.raises(TableError, match=f"is a {kind} table"):
            find_files([s3.uri(f"lakes/{place}")], frozenset({".parquet"}))
    (named,) = find_files([s3.uri("lakes/delta/day=1/a.parquet")], frozenset({".parquet"}))
    assert named.path.endswith("delta/day=1/a.parquet")


def test_a_secret_in_a_uri_is_refused_without_repeating_it() -> None:
    uri = "s3://key:hushhush@bucket/run"
    for use in (resolve, check_writable, lambda uri: find_files([uri], None)):
        with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as caught:
            use(uri)
        assert "hushhush" not in str(caught.value)


def test_an_artifact_stays_patient_in_another_process(s3: S3Server, tmp_path: Path) -> None:
    artifact = pickle.loads(pickle.dumps(Artifact(s3.uri("patient"), NodeCache(str(tmp_path), 1 << 20))))
    assert isinstance(artifact.filesystem, PatientS3FileSystem)
    began = time.monotonic()
    s3.cut(CUT_S)
    artifact.write_json("a.json", {"a": 1})
    assert time.monotonic() - began > CUT_S
    assert artifact.read_json("a.json") == {"a": 1}
    s3.cut(CUT_S)
    mapped = artifact.mappable("a.json")
    assert mapped is not None
    assert json.loads(Path(mapped).read_text()) == {"a": 1}


def test_the_servers_log_tells_who_asked_for_what(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "node-7")
    artifact = Artifact(s3.uri("logged"))
    before = len(s3.log)
    artifact.write_bytes("a file", b"0123456789")
    with artifact.filesystem.open_input_file(artifact.file_path("a file")) as file:
        assert file.read_at(4, 3) == b"3456"
    (asked,) = [request for request in s3.log[before:] if request.method == "GET"]
    assert asked == Request("GET", "logged/a file", asked.query, "bytes=3-6", 4, "node-7")
    assert {request.client for request in s3.log[before:]} == {"node-7"}


def test_a_run_survives_cuts_and_is_the_run_on_a_disk(s3: S3Server, tmp_path: Path) -> None:
    on_disk = load_config(write_run(tmp_path / "disk"))
    expected = run(on_disk, LocalEngine(), SilentObserver())
    config = load_config(remote_run(tmp_path / "s3", s3, "cut"))
    observer = CuttingObserver(s3)
    cuts_before = s3.n_cuts
    metrics = run(config, LocalEngine(), observer)
    assert s3.n_cuts - cuts_before == 3
    assert metrics["calibrate"] == expected["calibrate"]
    assert metrics["embed"]["agreement"] == expected["embed"]["agreement"]
    assert output_rows(Artifact(config.root)) == output_rows(Artifact(on_disk.root))
    copied = {path.suffix for path in (tmp_path / "s3" / "cache").iterdir()} - {".state", ""}
    assert copied == {".arrow"}, "vectors and graph were mapped from copies, and nothing half was left"
    root = Artifact(config.root)
    assert root.has("report.html")
    assert not root.child("vectors").has(".building.json")


def test_a_killed_run_goes_on_with_what_is_in_the_bucket(s3: S3Server, tmp_path: Path) -> None:
    path = remote_run(tmp_path, s3, "killed", sizes=(12,) * 10)
    command = kill.run_after_receipts("output/part-", 3, "run", path, "--local", "--json")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    output = Artifact(s3.uri("killed/root/output"))
    receipts = [entry.base_name.removesuffix(".json") for entry in output.entries(".receipts")]
    assert len(receipts) == 3
    assert not output.has(".manifest.json")
    done = {info.base_name: info.mtime_ns for info in output.filesystem.get_file_info(fs.FileSelector(output.path))}
    model = Artifact(s3.uri("killed/root/model"))
    before = model.filesystem.get_file_info(model.file_path("model.pt")).mtime_ns

    metrics = run(load_config(path), LocalEngine(), SilentObserver())
    assert metrics["n_rows"] == N_ROWS
    after = {info.base_name: info.mtime_ns for info in output.filesystem.get_file_info(fs.FileSelector(output.path))}
    assert {name: after[name] for name in receipts} == {name: done[name] for name in receipts}
    assert model.filesystem.get_file_info(model.file_path("model.pt")).mtime_ns == before
    assert [row["id"] for row in output_rows(Artifact(s3.uri("killed/root")))] == list(range(N_ROWS))
