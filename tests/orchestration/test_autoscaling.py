"""Ray's own autoscaler, with nodes that are processes of this machine instead of machines of a cloud."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.runs import write_run

PATIENCE_S = 240
HEAD_ID = "f" * 51 + "00000"
OBJECT_STORE_BYTES = 80 << 20
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


@dataclasses.dataclass
class Cluster:
    gcs: str
    environment: dict[str, str]


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [server.getsockname()[1] for server in servers]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without a CPU, CPU nodes 0 to 2 and GPU nodes 0 to 2, which leave after nine seconds without work."""
    folder = tmp_path_factory.mktemp("autoscaling")
    (port,) = free_ports(1)
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
        "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    arguments = ["--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=0", "--num-gpus=0", "--block"]
    arguments += [f"--autoscaling-config={folder}/autoscaling.yaml", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    log = open(folder / "head.log", "w")  # noqa: SIM115
    head = subprocess.Popen([binaries / "ray", "start", *arguments], env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"127.0.0.1:{port}", folder / "head.log")
        yield Cluster(f"127.0.0.1:{port}", environment)
    finally:
        family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        family += started_for(port)
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(20)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        log.close()


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
        self.began = time.monotonic()
        self.ended = threading.Event()
        self.events: list[tuple[float, str]] = []
        self.counts: list[tuple[float, int, int]] = []

    def say(self, what: str) -> None:
        self.events.append((time.monotonic() - self.began, what))

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
                self.counts.append((time.monotonic() - self.began, *now))
                self.say(f"{now[0]} CPU nodes, {now[1]} GPU nodes")

    def at(self, moment: float) -> tuple[int, int]:
        """Return the nodes of a moment."""
        before = [count[1:] for count in self.counts if count[0] <= moment]
        return before[-1]

    def __str__(self) -> str:
        return "\n".join(f"{seconds:6.1f} s  {what}" for seconds, what in sorted(self.events))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_come_for_the_stages_that_ask_for_them_and_leave_after(cluster: Cluster, tmp_path: Path) -> None:
    asks = {"train": {"num_gpus": 1, "num_cpus": 1}}
    ray = {"workers": 2, "use_gpu": False, "actors": {"max": 1}, "resources": asks}
    train = {"batch_size": 64, "max_steps": 40, "window_steps": 20, "warmup_steps": 5, "device": "cpu"}
    path = write_run(tmp_path, ray=ray | {"address": cluster.gcs}, train=train)
    timeline = Timeline(cluster.gcs)
    assert timeline.nodes() == (0, 0), "a cluster without work has a head alone"
    timeline.start()
    finished: dict[str, float] = {}
    command = [sys.executable, "-m", "distspectral", "run", str(path), "--json"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=cluster.environment, **pipes) as run:
        assert run.stderr is not None
        log = []
        for line in run.stderr:
            log.append(line)
            for stage in ("pack", "graph", "train", "embed"):
                if line.startswith(stage) and " in " in line:
                    finished[stage] = time.monotonic() - timeline.began
                    timeline.say(line.strip())
    assert run.returncode == 0, "".join(log)
    deadline = time.monotonic() + PATIENCE_S
    while timeline.nodes() != (0, 0):
        assert time.monotonic() < deadline, f"nodes stay although nothing runs\n{timeline}"
        time.sleep(0.5)
    timeline.ended.set()
    timeline.join()
    timeline.say("0 CPU nodes, 0 GPU nodes: idle nodes have left")
    print(f"\n{timeline}")
    assert timeline.at(finished["graph"])[1] == 0, "no GPU node before a stage asks for GPUs"
    assert timeline.at(finished["pack"])[0] > 0
    assert timeline.at(finished["train"])[1] == 2
    assert max(count[2] for count in timeline.counts) == 2
