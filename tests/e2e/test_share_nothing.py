"""Nodes that share nothing but a bucket: what each of them fetches is counted.

A node is a Ray node of this machine with a temporary directory, and so a cache, of its own. It signs its requests with
a key of its own, by which the server's log tells who asked. ``SHARE_NOTHING_ROWS=300000 SHARE_NOTHING_DIM=64`` makes
the run as large, ``SHARE_NOTHING_NODES=2,3`` repeats it, ``SHARE_NOTHING_SHARDS=100,400,1600`` counts requests for so
many shards, and ``-s`` shows the counts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
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
from distspectral.training.growth import N_JUDGED
from tests.storage.s3 import BUCKET, Request, S3Server

ROWS = int(os.environ.get("SHARE_NOTHING_ROWS", "6000"))
DIM = int(os.environ.get("SHARE_NOTHING_DIM", "16"))
SHARDS = [int(n) for n in os.environ.get("SHARE_NOTHING_SHARDS", "4,8,16").split(",")]
STEPS = int(os.environ.get("SHARE_NOTHING_STEPS", "40"))
BRIEF: dict[str, Any] = {"max_steps": STEPS, "window_steps": 20, "warmup_steps": 5, "device": "cpu"}
NODES = [int(n) for n in os.environ.get("SHARE_NOTHING_NODES", "3").split(",")]
PATIENCE_S = 600 if "SHARE_NOTHING_ROWS" not in os.environ and max(SHARDS) < 100 else 3600
OBJECT_STORE_BYTES = 80 << 20

pytestmark = [pytest.mark.ray, pytest.mark.clusters, pytest.mark.flaky(reruns=1), pytest.mark.timeout(PATIENCE_S)]


def write_remote_run(folder: Path, server: S3Server, name: str, n_rows: int, n_shards: int, **sections: Any) -> Path:
    """Write shards into the bucket, and the default run over them but for short trainings; return its config."""
    vectors, labels = Mixture(DIM).rows(0, n_rows)
    write_vectors(str(folder / "data"), vectors, labels=labels, n_shards=n_shards)
    filesystem, place = resolve(server.uri(f"{name}/data"))
    fs.copy_files(str(folder / "data"), place, destination_filesystem=filesystem)
    values = {
        "name": name,
        "root": server.uri(f"{name}/root"),
        "data": {"path": server.uri(f"{name}/data"), "id_column": "id", "label_column": "label"},
        "representation": "code",
        "graph": {"method": "cells"},
        "autoencoder": {**BRIEF, "hidden": [32]},
        "siamese": {**BRIEF, "hidden": [32]},
        "network": {"hidden": [32]},
        "train": BRIEF,
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
        print(f"{n_shards:,} shards: {counts[-1]:,} requests")
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


BATCH = 256
DRAWN = {
    "siamese": {**BRIEF, "hidden": [32], "batch_size": BATCH, "batches": "drawn"},
    "train": {**BRIEF, "batch_size": BATCH, "batches": "drawn"},
}
"""So that what a node fetches for a training is its batches; the autoencoder maps its rows and copies them."""
DRAWN_BYTES = {"siamese": 4 * 24 + 8, "training": 4 * (24 + 10) + 8}
"""Of a record by the training's folder: codes, for the eigenfunctions Siamese features too, and a number."""

PASSES, COPIES = (
    {"data": 2, "vectors": 2, "codes": 3, "features": 1, "graph": 1, "neighbors": 3, "reweight": 3},
    {
        **dict.fromkeys(("codes", "features", "graph", "reweight"), 1),
        **dict.fromkeys(("data", "vectors", "neighbors"), 0),
    },
)
"""How often the nodes together read an artifact from its first row to its last, and how often each node copies it: data
are packed and embedded; vectors encoded and copied where the autoencoder is trained; codes looked through for a sample,
routed to cells and encoded; lists weighed after scales were taken, and written by ranges before; edges of the last
graph summed for calibration, for its certificate and for the tree. The graph's neighbours lie anywhere, so that nodes
map copies."""
BESIDE = 192 << 10
"""Bytes of footers and page ends that reading an object may cost each time: they matter where rows are few."""


def artifact_of(key: str, name: str) -> str:
    """Return the artifact, or ``data``, that an object of a run belongs to; empty for what is none."""
    parts = key.removeprefix(f"{name}/").removeprefix("root/").split("/")
    return parts[0] if len(parts) > 1 else ""


def fetched(log: list[Request], name: str, standing: set[str]) -> dict[str, Counter[str]]:
    """Return by artifact the bytes that each client fetched of the shards that stand when all is done."""
    found: dict[str, Counter[str]] = {}
    for one in log:
        if one.method == "GET" and one.key.removeprefix(f"{name}/") in standing:
            found.setdefault(artifact_of(one.key, name), Counter())[one.client] += one.n_bytes
    return found


def check_bytes(log: list[Request], name: str, server: S3Server, nodes: list[str]) -> None:
    """Compare what the nodes fetched of each artifact with what the stages need of it."""
    shards = {key: size for key, size in sizes(server, name).items() if key.endswith((".arrow", ".parquet"))}
    for artifact, by_client in sorted(fetched(log, name, set(shards)).items()):
        if artifact not in COPIES:
            continue
        of_it = [size for key, size in shards.items() if artifact_of(key, name) == artifact]
        reads = PASSES.get(artifact, 0) + COPIES[artifact] * len(nodes)
        print(f"{artifact:<10} {sum(of_it):>12,} B", {who: round(n / sum(of_it), 2) for who, n in by_client.items()})
        by_nodes = sum(by_client[node] for node in nodes)
        assert by_nodes <= 1.2 * reads * sum(of_it) + reads * BESIDE * len(of_it), artifact
        each = PASSES.get(artifact, 0) + COPIES[artifact]
        most = max(by_client[node] for node in nodes)
        assert most <= 1.2 * each * sum(of_it) + each * BESIDE * len(of_it), (artifact, by_client)


def check_batches(log: list[Request], name: str) -> None:
    """Compare what was fetched of drawn batches with their size."""
    for folder, record_bytes in DRAWN_BYTES.items():
        written = (STEPS + N_JUDGED) * 2 * BATCH * record_bytes
        shards = [one for one in log if one.key.startswith(f"{name}/root/{folder}/batches/batches-")]
        fetched: Counter[str] = Counter()
        for one in shards:
            fetched[one.client] += one.n_bytes if one.method == "GET" else 0
        print(f"batches of {folder} {written:,} B", {who: round(n / written, 2) for who, n in fetched.items() if n})
        assert 0.9 * written < sum(fetched.values()) <= 1.2 * written + BESIDE, "one worker trains, and reads them once"


@pytest.fixture(scope="module")
def alone(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The root of the run by one process."""
    folder = tmp_path_factory.mktemp("alone")
    sections = {**DRAWN, "storage": {"cache_dir": str(folder / "cache")}}
    config = load_config(write_remote_run(folder, s3, "alone", ROWS, 8, **sections))
    run(config, LocalEngine(), SilentObserver())
    return Artifact(config.root)


def when_searching(root: Artifact, driver: subprocess.Popen[bytes]) -> None:
    """Return when cells are being searched, or the driver has ended."""
    neighbors = root.child("neighbors")
    while driver.poll() is None and not any(info.base_name.startswith("cell-") for info in neighbors.entries()):
        time.sleep(0.2)


@pytest.mark.parametrize("nodes", NODES, indirect=True)
def test_nodes_of_which_one_is_lost_do_what_one_process_does(
    s3: S3Server, tmp_path: Path, nodes: Nodes, alone: Artifact
) -> None:
    name = f"on-{len(nodes.names)}-nodes"
    path = write_remote_run(tmp_path / name, s3, name, ROWS, 8, **DRAWN, ray={"workers": 1})
    root, before = Artifact(load_config(path).root), len(s3.log)
    with started(path, nodes, tmp_path / "driver.log") as driver:
        when_searching(root, driver)
        nodes.cluster.remove_node(nodes.nodes[0], allow_graceful=False)
        nodes.add()
        assert driver.wait() == 0, (tmp_path / "driver.log").read_text()[-3000:]
    log = s3.log[before:]
    check_bytes(log, name, s3, nodes.names)
    check_batches(log, name)
    worked = {one.client for one in log}.intersection(nodes.names)
    assert len(worked) >= len(nodes.names) - 1, "all but perhaps the one that came last have worked"
    for stage in ("vectors", "codes", "neighbors", "graph", "features", "reweight"):
        assert shard_bytes(root, stage) == shard_bytes(alone, stage), stage
    assert rows_of(root, "output", ["id", "cluster"]) == rows_of(alone, "output", ["id", "cluster"])
