"""A Ray cluster of several nodes on this machine, for benchmarks that take nodes away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml
from ray.cluster_utils import Cluster

from distspectral.errors import DistSpectralError
from distspectral.orchestration.connection import read_authentication, token_environment

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
HEAD = {**NODE, "include_dashboard": True, "dashboard_port": 0, "dashboard_agent_listen_port": 0}
"""With a dashboard: Ray Train asks it whether a driver is dead, whose workers' CPUs are to be given back."""
NODE_STARTS = 3
AGENTS = re.compile("IDLE|Agent")
"""Titles of Ray's processes that every node has at any time."""


class ChaosError(DistSpectralError):
    """A run on a cluster that lost something did not get on, or the cluster did not."""


class Nodes:
    """A head and other nodes, of one CPU each.

    Args:
        n_nodes: in all.

    Raises:
        ChaosError: a node did not start.
    """

    def __init__(self, n_nodes: int) -> None:
        os.environ.update(token_environment(), RAY_USAGE_STATS_ENABLED="0")  # also of drivers that join
        read_authentication()

        self.cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        for _ in range(n_nodes - 1):
            self.add()

    @property
    def address(self) -> str:
        """What a driver connects to."""
        return str(self.cluster.address)

    def __len__(self) -> int:
        """Return the number of nodes beside the head."""
        return len(self.cluster.worker_nodes)

    def add(self) -> None:
        """Start a node; Ray itself gives up after half a minute, which a busy machine may need."""
        for attempt in range(NODE_STARTS):
            try:
                self.cluster.add_node(**NODE)
                return
            except Exception as error:  # Ray raises nothing narrower
                if attempt == NODE_STARTS - 1:
                    raise ChaosError(f"a node of the cluster did not start: {error}") from error

    def kill(self, index: int) -> None:
        """End all processes of a node other than the head at once.

        Args:
            index: among these, in [0, len(self)).
        """
        node = sorted(self.cluster.worker_nodes, key=id)[index]
        self.cluster.remove_node(node, allow_graceful=False)

    def processes(self) -> list[tuple[psutil.Process, str]]:
        """Return Ray's workers, actors and agents on all nodes, with what they say they do, by process id."""
        found: list[tuple[psutil.Process, str]] = []
        for node in [self.cluster.head_node, *self.cluster.worker_nodes]:
            for raylet in node.all_processes["raylet"]:
                for child in psutil.Process(raylet.process.pid).children():
                    try:
                        title = " ".join(child.cmdline()).strip()  # padded to what it was called before
                    except psutil.Error:
                        continue
                    if title.startswith("ray::"):
                        found.append((child, title))
        return sorted(found, key=lambda one: one[0].pid)

    def close(self) -> None:
        """End the cluster."""
        self.cluster.shutdown()


def write_run(folder: Path, name: str, data: Path, n_clusters: int, **sections: dict[str, Any]) -> Path:
    """Write the config of a small run over generated rows.

    Args:
        folder: where ``name.yaml`` and the run ``name`` go.
        name: of the run.
        data: its shards, with a column ``id``.
        n_clusters: to find.
        sections: of the config, beside those that all runs here share.

    Returns:
        The config's path.
    """
    values = {
        "name": name,
        "root": str(folder / name),
        "data": {"path": str(data), "id_column": "id"},
        "representation": "input",
        "affinity": {"space": "euclidean"},
        "network": {"hidden": [64]},
        "cluster": {"n_clusters": n_clusters},
        **sections,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start_run(config: Path, log: Path, *, local: bool = False) -> subprocess.Popen[bytes]:
    """Start ``distspectral run`` in a process of its own; what it says goes to the end of ``log``."""
    command = [sys.executable, "-m", "distspectral", "run", str(config), "--json", *(["--local"] if local else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
    with log.open("ab") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)


def tail(log: Path) -> str:
    """Return the end of what a run said."""
    return log.read_text(errors="replace")[-2000:]
