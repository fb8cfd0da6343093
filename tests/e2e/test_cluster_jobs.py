"""Jobs on a cluster that grows and shrinks: a head without work, Ray's own autoscaler, artifacts in an S3 bucket.

Nodes are processes of this machine instead of machines of a cloud. One cluster serves all tests of this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pyarrow import fs
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from distspectral.cli.app import app
from distspectral.config import load_config
from distspectral.datasets import write_vectors
from distspectral.orchestration import submit
from distspectral.storage.artifact.directory import Artifact
from tests.runs import CHAIN, DIM, N_ROWS, write_run
from tests.storage.s3 import S3Server, remote_run

pytestmark = [pytest.mark.ray, pytest.mark.clusters, pytest.mark.flaky(reruns=1), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300
HEAD_ID = "f" * 51 + "00000"
OBJECT_STORE_BYTES = 80 << 20
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


@dataclasses.dataclass
class Cluster:
    """Where it answers, and the directory in which its nodes keep their logs."""

    gcs: str
    dashboard: str
    logs: Path
    environment: dict[str, str]


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [server.getsockname()[1] for server in servers]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without a CPU, CPU nodes 0 to 2 and GPU nodes 0 to 2, which leave after nine seconds without work."""
    folder = tmp_path_factory.mktemp("autoscaling")
    port, dashboard_port, agent_port = free_ports(3)
    provider = {"type": "external", "module": PROVIDER, "gcs_address": f"127.0.0.1:{port}", "head_node_id": HEAD_ID}
    provider |= {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    nodes: dict[str, Any] = {"ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
    for name, resources, most in (("cpu", {"CPU": 2}, 2), ("gpu", {"CPU": 1, "GPU": 1}, 2)):
        resources = resources | {"object_store_memory": OBJECT_STORE_BYTES}
        nodes[name] = {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}
    config = {
        "cluster_name": "fake",
        "max_workers": 4,
        "idle_timeout_minutes": 0.15,
        "upscaling_speed": 1000,
        "provider": provider | {"launch_multiple": True},
        "available_node_types": nodes,
        "head_node_type": "ray.head.default",
        **{key: [] for key in ("setup_commands", "head_setup_commands", "worker_setup_commands")},
        **{key: [] for key in ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands")},
        "cluster_synced_files": [],
        "file_mounts": {},
        "auth": {},
        "rsync_exclude": [],
        "rsync_filter": [],
    }
    (folder / "autoscaling.yaml").write_text(json.dumps(config))
    binaries = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    place = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path must be short
    arguments = ["--head", f"--port={port}", "--num-cpus=0", "--num-gpus=0", "--block", f"--temp-dir={place}"]
    # the head's agent takes jobs; its usual port belongs to another Ray on this machine, if there is one
    arguments += [f"--dashboard-port={dashboard_port}", f"--dashboard-agent-listen-port={agent_port}"]
    arguments += [f"--autoscaling-config={folder}/autoscaling.yaml", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")  # of this process, a client
    log = open(folder / "head.log", "w")  # noqa: SIM115
    head = subprocess.Popen([binaries / "ray", "start", *arguments], env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"127.0.0.1:{port}", folder / "head.log")
        dashboard = f"http://127.0.0.1:{dashboard_port}"
        yield Cluster(f"127.0.0.1:{port}", dashboard, place / "session_latest" / "logs", environment)
    finally:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        family += started_for(port)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        log.close()
        patch.undo()
        shutil.rmtree(place, ignore_errors=True)


def wait_for(gcs: str, log: Path) -> None:
    """Return when the head and its node answer."""
    from ray._raylet import GcsClient

    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(Exception):
            if GcsClient(address=gcs).get_all_node_info():
                return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def started_for(port: int) -> list[psutil.Process]:
    """Return the processes that belong to the cluster of this port, and to no other."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(re.search(rf":{port}\b", part) for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


class Timeline(threading.Thread):
    """What nodes there are and what the job says, by the second."""

    def __init__(self, gcs: str) -> None:
        super().__init__(daemon=True)
        from ray._raylet import GcsClient

        self.gcs = GcsClient(address=gcs)
        self.began = time.time()
        self.ended = threading.Event()
        self.events: list[tuple[float, str]] = []
        self.counts: list[tuple[float, int, int]] = []

    def say(self, what: str) -> None:
        self.events.append((time.time() - self.began, what))

    def nodes(self) -> tuple[int, int]:
        """Return how many CPU and GPU nodes are alive."""
        alive = [info for info in self.gcs.get_all_node_info().values() if info.state == 0]
        kinds = [dict(info.resources_total) for info in alive]
        gpu = sum("GPU" in kind for kind in kinds)
        return sum("CPU" in kind for kind in kinds) - gpu, gpu

    def run(self) -> None:
        while not self.ended.wait(0.3):
            now = self.nodes()
            if not self.counts or self.counts[-1][1:] != now:
                self.counts.append((time.time() - self.began, *now))
                self.say(f"{now[0]} CPU nodes, {now[1]} GPU nodes")

    def most(self, begin: float, end: float) -> tuple[int, int]:
        """Return how many CPU and GPU nodes there were at most between two moments."""
        first = [count[1:] for count in self.counts if count[0] <= begin][-1:]
        then = [count[1:] for count in self.counts if begin < count[0] <= end]
        cpu, gpu = zip(*first, *then, strict=True)
        return max(cpu), max(gpu)

    def __str__(self) -> str:
        return "\n".join(f"{seconds:6.1f} s  {what}" for seconds, what in sorted(self.events))


@dataclasses.dataclass
class Done:
    """A run that the cluster has finished."""

    config: Path
    output: str
    returncode: int
    events: list[dict[str, Any]]
    timeline: Timeline
    ended: dict[str, float]


@pytest.fixture(scope="module")
def done(cluster: Cluster, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """The whole pipeline by Ray's own command: data and artifacts in the bucket, training on nodes with a GPU.

    Without ``--working-dir``: nodes of one machine share a session directory, and one that leaves removes what was
    unpacked there for all of them.
    """
    asks = {"train": {"num_gpus": 1, "num_cpus": 1}}
    ray = {"workers": 2, "use_gpu": False, "actors": {"max": 1}, "resources": asks}
    config = remote_run(tmp_path_factory.mktemp("run"), s3, "autoscaled", ray=ray)
    timeline = Timeline(cluster.gcs)
    assert timeline.nodes() == (0, 0), "a cluster without work has a head alone"
    timeline.start()
    command = [
        "ray",
        "job",
        "submit",
        "--address",
        cluster.dashboard,
        "--runtime-env-json",
        json.dumps({"env_vars": {"DISTSPECTRAL_LOG": "-"}}),
    ]
    command += ["--", "python", str(ROOT / "jobs" / "pipeline.py"), "--config", str(config)]
    log, events, ended = [], [], {}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=cluster.environment, cwd=ROOT, **pipes) as job:
        assert job.stdout is not None
        for line in job.stdout:
            log.append(line)
            if not line.startswith("{"):
                continue
            events.append(json.loads(line))
            if events[-1]["event"] == "stage finished":
                stage = events[-1]["stage"]
                # as it says: its line may come here later than the next stage's nodes
                ended[stage] = datetime.fromisoformat(events[-1]["time"]).timestamp() - timeline.began
                timeline.say(f"{stage} finished in {events[-1]['seconds']:.1f} s")
    yield Done(config, "".join(log), job.returncode, events, timeline, ended)
    timeline.ended.set()
    timeline.join()


@pytest.mark.slow
def test_rays_command_runs_the_pipeline_and_brings_back_log_and_exit_code(done: Done, tmp_path: Path) -> None:
    assert done.returncode == 0, done.output
    assert tuple(done.ended) == CHAIN
    assert "embedded in" in done.output, "lines for people too"
    root = Artifact(load_config(done.config).root)
    assert root.read_json("metrics.json")["n_rows"] == N_ROWS
    assert root.has("report.html")
    training = root.child("training")
    found = training.filesystem.get_file_info(fs.FileSelector(training.file_path("checkpoints"), recursive=True))
    assert [info for info in found if info.base_name == "checkpoint.pt"], "Ray Train's checkpoints"
    assert not (done.config.parent / "root").exists(), "nothing beside the bucket"


def test_nodes_come_for_the_stages_that_ask_for_them(done: Done) -> None:
    timeline, ended = done.timeline, done.ended
    cpu_nodes, gpu_nodes = timeline.most(0, ended["graph"])
    assert cpu_nodes > 0
    assert gpu_nodes == 0, "no GPU node before a stage asks for GPUs"
    assert timeline.most(ended["graph"], ended["train"] + 1)[1] == 2, "the log's times are cut to the second"
    assert max(count[2] for count in timeline.counts) == 2


def test_driver_tasks_actors_and_ranks_write_json_lines_of_the_same_run(done: Done, cluster: Cluster) -> None:
    files = [file.read_text(errors="replace") for file in cluster.logs.glob("worker-*.err")]
    written = [json.loads(line) for text in files for line in text.splitlines() if line.startswith("{")]
    assert {(line["run"], line["run_id"]) for line in [*written, *done.events]} == {
        ("tiny", done.events[0]["run_id"]),
    }
    assert {line["rank"] for line in done.events} == {"driver"}
    ranks = {(line["rank"], line["stage"]) for line in written}
    assert ranks >= {("task", "pack"), ("task", "graph"), (0, "train"), (1, "train"), ("actor", "embed")}
    of_functions = [line for line in written if (line["rank"], line["stage"]) == (1, "train")]
    (finished,) = [line for line in of_functions if line["event"] == "training finished"]
    assert finished["workers"] == 2
    assert finished["seconds"] > 0


def test_our_command_finds_everything_done_and_follows_the_same_job_again(done: Done, cluster: Cluster) -> None:
    command = ["submit", str(done.config), "--address", cluster.dashboard]
    first, again = (CliRunner().invoke(app, command) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output + again.output
    assert ": submitted" in first.output
    assert "was submitted before" in again.output
    for output in (first.output, again.output):
        assert output.count("up to date") == len(CHAIN)


def test_rays_command_takes_the_jobs_of_a_checkout_along(done: Done, cluster: Cluster) -> None:
    command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", "."]
    command += ["--", "python", "jobs/pipeline.py", "--config", str(done.config)]
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE_S, "check": False}
    job = subprocess.run(command, env=cluster.environment, cwd=ROOT, **pipes)
    assert job.returncode == 0, job.stdout + job.stderr
    assert job.stdout.count("up to date") == len(CHAIN)


def test_a_failing_job_ends_with_the_users_error_and_its_exit_code(cluster: Cluster, tmp_path: Path) -> None:
    path = write_run(tmp_path, ray={"use_gpu": False})
    vectors = np.ones((5, DIM), np.float32)
    vectors[3, 2] = np.nan
    write_vectors(str(tmp_path / "data"), vectors, labels=np.zeros(5, np.int64))  # replaces part-00000
    client = submit.connect(cluster.dashboard)
    job = submit.make_job(load_config(path, ["data.id_column=null"]))
    name, is_new = submit.submit(client, job)
    assert is_new
    pieces: list[str] = []
    details = submit.follow(client, name, pieces.append)
    log = "".join(pieces)
    assert submit.exit_code(details) == 2, f"{details}\n{log}"
    # a node that leaves takes the directory along in which a raylet may just start a worker, which then says so
    log = "\n".join(line for line in log.splitlines() if "(raylet)" not in line)
    assert "Traceback" not in log
    first_error = next(line for line in log.splitlines() if "rror" in line)
    assert first_error.startswith("error: "), log
    assert "part-00000.parquet" in first_error
    assert "row 3" in first_error


def test_a_detached_job_is_found_again_and_stopped(cluster: Cluster, tmp_path: Path) -> None:
    endless = ["train.max_steps=1000000", "train.patience=0"]
    path = str(write_run(tmp_path, ray={"workers": 2, "use_gpu": False}))
    command = ["submit", path, "--address", cluster.dashboard]
    for value in endless:
        command += ["--set", value]
    detached = CliRunner().invoke(app, [*command, "--detach"])
    assert detached.exit_code == 0, detached.output
    stopped = CliRunner().invoke(app, [*command, "--stop"])  # at once, while the job may not have begun
    name = submit.make_job(load_config(path, endless)).name
    assert stopped.output == f"job {name}: stopped\n"
    details = submit.connect(cluster.dashboard).get_job_info(name)
    assert details.status == JobStatus.STOPPED
    assert submit.exit_code(details) == 130


def test_idle_nodes_leave(done: Done) -> None:
    timeline = done.timeline
    deadline = time.monotonic() + PATIENCE_S
    while timeline.nodes() != (0, 0):
        assert time.monotonic() < deadline, f"nodes stay although nothing runs\n{timeline}"
        time.sleep(0.5)
    timeline.say("0 CPU nodes, 0 GPU nodes: idle nodes have left")
    print(f"\n{timeline}")
