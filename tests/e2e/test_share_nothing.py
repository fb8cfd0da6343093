"""Nodes that share nothing but a bucket: what each of them fetches is counted.

A node is a Ray node of this machine with a temporary directory, and so a cache, of its own. It signs its requests with
a key of its own, by which the server's log tells who asked. ``SHARE_NOTHING_ROWS=300000 SHARE_NOTHING_DIM=64`` makes
the run as large, ``SHARE_NOTHING_SHARDS=100,400,1600`` counts requests for so many shards, and ``-s`` shows the counts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import fs
from ray.cluster_utils import Cluster

from distspectral.config import load_config
from distspectral.datasets import Mixture, write_vectors
from distspectral.orchestration.engine import LocalEngine
from distspectral.orchestration.observer import SilentObserver
from distspectral.orchestration.pipeline import run
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.filesystems import resolve
from tests.storage.s3 import BUCKET, Request, S3Server

ROWS = int(os.environ.get("SHARE_NOTHING_ROWS", "6000"))
DIM = int(os.environ.get("SHARE_NOTHING_DIM", "16"))
SHARDS = [int(n) for n in os.environ.get("SHARE_NOTHING_SHARDS", "4,8,16").split(",")]
STEPS = int(os.environ.get("SHARE_NOTHING_STEPS", "40"))
PATIENCE_S = 600 if ROWS < 10_000 else 3600
OBJECT_STORE_BYTES = 80 << 20

pytestmark = [pytest.mark.ray, pytest.mark.clusters, pytest.mark.flaky(reruns=1), pytest.mark.timeout(PATIENCE_S)]


def write_remote_run(folder: Path, server: S3Server, name: str, n_rows: int, n_shards: int, **sections: Any) -> Path:
    """Write shards into the bucket, and the default run over them but for short trainings; return its config."""
    vectors, labels = Mixture(DIM).rows(0, n_rows)
    write_vectors(str(folder / "data"), vectors, labels=labels, n_shards=n_shards)
    filesystem, place = resolve(server.uri(f"{name}/data"))
    fs.copy_files(str(folder / "data"), place, destination_filesystem=filesystem)
    brief = {"max_steps": STEPS, "window_steps": 20, "warmup_steps": 5, "device": "cpu"}
    values = {
        "name": name,
        "root": server.uri(f"{name}/root"),
        "data": {"path": server.uri(f"{name}/data"), "id_column": "id", "label_column": "label"},
        "representation": "code",
        "graph": {"method": "cells"},
        "autoencoder": {**brief, "hidden": [32]},
        "siamese": {**brief, "hidden": [32]},
        "network": {"hidden": [32]},
        "train": brief,
        "cluster": {"n_clusters": Mixture(DIM).n_clusters},
        **sections,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def sizes(server: S3Server, name: str) -> dict[str, int]:
    """Return the bytes of each object of a run."""
    filesystem, place = resolve(server.uri(name))
    infos = filesystem.get_file_info(fs.FileSelector(place, recursive=True))
    return {info.path.removeprefix(f"{BUCKET}/{name}/"): info.size for info in infos if info.type == fs.FileType.File}


def rows_of(root: Artifact, stage: str, columns: list[str]) -> list[dict[str, Any]]:
    """Return the rows of an output."""
    output = root.child(stage)
    names = [output.file_path(shard.name) for shard in output.manifest().shards]
    tables = [pq.read_table(name, filesystem=output.filesystem, columns=columns) for name in names]
    return [row for table in tables for row in table.to_pylist()]


def shard_bytes(root: Artifact, stage: str) -> list[bytes]:
    """Return the shards of an artifact, bit for bit."""
    artifact = root.child(stage)
    return [artifact.read_bytes(shard.name) for shard in artifact.manifest().shards]


# ---- requests ----------------------------------------------------------------------------------------------------


def test_requests_grow_as_shards_do(s3: S3Server, tmp_path: Path) -> None:
    counts = []
    for n_shards in SHARDS:
        name = f"shards-{n_shards}"
        path = write_remote_run(
            tmp_path / name, s3, name, 30 * n_shards, n_shards, storage={"cache_dir": str(tmp_path)}
        )
        before = len(s3.log)
        run(load_config(path), LocalEngine(), SilentObserver())
        counts.append(len(s3.log) - before)
        kinds = Counter(
            (one.method, one.key.split("/")[3] if one.key.count("/") > 3 else "") for one in s3.log[before:]
        )
        print(f"{n_shards:,} shards: {counts[-1]:,} requests, {kinds.most_common(12)}")
    slopes = np.diff(counts) / np.diff(SHARDS)
    assert slopes[-1] <= 1.1 * slopes[0] + 1, counts


# ---- nodes -------------------------------------------------------------------------------------------------------


class Nodes:
    """A head without a CPU and nodes of one CPU each, none of which sees another's files.

    Args:
        folder: for their temporary directories.
        n_nodes: beside the head.
    """

    def __init__(self, folder: Path, n_nodes: int) -> None:
        self.folder = folder
        self.names: list[str] = []
        with self._environment("head"):
            head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": True}
            self.cluster = Cluster(
                initialize_head=True, head_node_args={**head, "dashboard_port": 0, "dashboard_agent_listen_port": 0}
            )
        self.nodes = [self.add() for _ in range(n_nodes)]

    def add(self) -> Any:
        """Start one more."""
        self.names.append(f"node-{len(self.names)}")
        with self._environment(self.names[-1]):
            return self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)

    @contextlib.contextmanager
    def _environment(self, name: str) -> Iterator[None]:
        """What a node's processes inherit: a key and a temporary directory."""
        place = self.folder / name
        place.mkdir(parents=True)
        patch = pytest.MonkeyPatch()
        patch.setenv("AWS_ACCESS_KEY_ID", name)
        patch.setenv("TMPDIR", str(place))
        patch.setenv("RAY_TMPDIR", "/tmp")  # its sockets' paths must be short
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            yield
        finally:
            patch.undo()


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Nodes]:
    started = Nodes(tmp_path / "nodes", request.param)
    yield started
    started.cluster.shutdown()


@contextlib.contextmanager
def started(path: Path, nodes: Nodes, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a driver of the run that shares nothing with the nodes either."""
    place = log.parent / "driver"
    place.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "AWS_ACCESS_KEY_ID": "driver", "TMPDIR": str(place)}
    command = [sys.executable, "-m", "distspectral", "run", str(path), "--json"]
    command += ["--set", f"ray.address={nodes.cluster.address}"]
    with log.open("ab") as stream:
        driver = subprocess.Popen(
            command, env=environment | {"RAY_AUTH_MODE": "disabled"}, stdout=stream, stderr=stream
        )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


READ = {
    "data": 2,  # packed, embedded
    "vectors": 2,
    "codes": 4,
    "neighbors": 2,
    "graph": 2,
    "features": 2,
    "reweight": 1,
}
"""How often the nodes together read an artifact from its first row to its last, a row once each time."""


def artifact_of(key: str, name: str) -> str:
    """Return the artifact, or ``data``, that an object of a run belongs to; empty for what is none."""
    parts = key.removeprefix(f"{name}/").removeprefix("root/").split("/")
    return parts[0] if len(parts) > 1 else ""


def fetched(log: list[Request], name: str) -> dict[str, Counter[str]]:
    """Return by artifact the bytes of shards that each client fetched."""
    found: dict[str, Counter[str]] = {}
    for one in log:
        if one.method == "GET" and one.key.startswith(f"{name}/") and one.key.endswith((".arrow", ".parquet")):
            found.setdefault(artifact_of(one.key, name), Counter())[one.client] += one.n_bytes
    return found


def fetched_twice(log: list[Request]) -> dict[tuple[str, str], int]:
    """Return by client and object how often it was fetched as a whole, where that is more than once."""
    whole = Counter((one.client, one.key) for one in log if one.method == "GET" and one.range is None)
    return {place: n for place, n in whole.items() if n > 1}


def print_bytes(log: list[Request], name: str, server: S3Server) -> None:
    """Print by artifact its size, and what each client fetched of it as multiples."""
    total: Counter[str] = Counter()
    for key, size in sizes(server, name).items():
        if key.endswith((".arrow", ".parquet")):
            total[artifact_of(f"{name}/{key}", name)] += size
    for artifact, by_client in sorted(fetched(log, name).items()):
        size = total.get(artifact, 0)
        shares = {client: round(n / size, 2) if size else n for client, n in sorted(by_client.items())}
        print(f"{artifact:<14} {size:>12,} B  {shares}")


@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_two_nodes_do_what_one_process_does(s3: S3Server, tmp_path: Path, nodes: Nodes) -> None:
    path = write_remote_run(tmp_path / "apart", s3, "apart", ROWS, 8, ray={"workers": 1})
    before = len(s3.log)
    with started(path, nodes, tmp_path / "driver.log") as driver:
        assert driver.wait() == 0, (tmp_path / "driver.log").read_text()[-3000:]
    log = s3.log[before:]
    print(Counter((one.client, one.method) for one in log))
    print_bytes(log, "apart", s3)
    print(Counter({f"{client} {key}": n for (client, key), n in fetched_twice(log).items()}).most_common(40))
    cache = {"cache_dir": str(tmp_path / "cache")}
    alone = load_config(write_remote_run(tmp_path / "alone", s3, "alone", ROWS, 8, storage=cache))
    run(alone, LocalEngine(), SilentObserver())
    one, other = Artifact(alone.root), Artifact(load_config(path).root)
    for stage in ("vectors", "codes", "neighbors", "graph", "features", "reweight"):
        assert shard_bytes(one, stage) == shard_bytes(other, stage), stage
    assert rows_of(one, "output", ["id", "cluster"]) == rows_of(other, "output", ["id", "cluster"])
