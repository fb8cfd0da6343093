"""Machines a run may be planned for: this one as measured, more of its cores, or accelerators from their data sheets.

What is measured and what is assumed is told apart by :class:`Constant`, whose source the plan prints beside each value.

Data sheets: NVIDIA H200, H100 and A100 Tensor Core GPU (SXM): memory, memory bandwidth and dense bfloat16 rate, which
is half of the one with sparsity that brochures lead with. Hosts: NVIDIA DGX H200, DGX H100 and DGX A100: cores, system
memory, network adapters. Storage rates of hosts are those of a modest NVMe array, for vendors give none.
"""

from __future__ import annotations

import dataclasses
import os
import re

import psutil

from distspectral.errors import ConfigError

MEASURED, ASSUMED = "measured here", "assumed"
GBPS = 1e9 / 8
"""Bytes per second of a gigabit per second."""
DEFAULT_NETWORK = 10 * GBPS
SHAPE = re.compile(r"(?P<count>\d+)\s*x\s*(?P<kind>\w+)(?:@(?P<gbps>\d+(?:\.\d+)?)Gbps)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """An accelerator by its data sheet.

    Attributes:
        memory_bytes: of the card.
        bandwidth: of its memory, bytes per second.
        flops: dense bfloat16 operations per second.
    """

    memory_bytes: float
    bandwidth: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Node:
    """One machine.

    Attributes:
        cores: of its CPUs.
        memory_bytes: of the host.
        disk_read: bytes per second.
        disk_write: bytes per second.
        network: bytes per second to the others, and to storage that they share.
        gpus: how many accelerators.
        gpu: which, None without any.
    """

    cores: int
    memory_bytes: float
    disk_read: float
    disk_write: float
    network: float
    gpus: int = 0
    gpu: Gpu | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Nodes of one kind.

    Attributes:
        name: as it was asked for.
        kind: what prices are looked up by: ``cpu`` or the accelerator's name.
        nodes: how many.
        workers: training workers, one per accelerator where there are any.
        node: each.
        source: where the node's numbers come from.
        uses_ray: whether Ray is started; otherwise everything is one process.
    """

    name: str
    kind: str
    nodes: int
    workers: int
    node: Node
    source: str
    uses_ray: bool = True

    @property
    def cores(self) -> int:
        """Of all nodes."""
        return self.nodes * self.node.cores

    @property
    def gpu(self) -> Gpu | None:
        """The accelerator, None without any."""
        return self.node.gpu


DGX = {
    "H200": Node(112, 2e12, 10e9, 5e9, 400 * GBPS, 8, Gpu(141e9, 4.8e12, 989e12)),
    "H100": Node(112, 2e12, 10e9, 5e9, 400 * GBPS, 8, Gpu(80e9, 3.35e12, 989e12)),
    "A100": Node(128, 2e12, 10e9, 5e9, 200 * GBPS, 8, Gpu(80e9, 2.039e12, 312e12)),
}
"""Nodes of eight accelerators; the network is that of one adapter."""


def this_machine(workers: int, disk_read: float, disk_write: float) -> Cluster:
    """Return this machine, whose storage was measured.

    Args:
        workers: training workers of the config.
        disk_read: bytes per second.
        disk_write: bytes per second.
    """
    cores, memory = os.cpu_count() or 1, float(psutil.virtual_memory().total)
    return Cluster(
        "this machine", "cpu", 1, workers, Node(cores, memory, disk_read, disk_write, DEFAULT_NETWORK), MEASURED
    )


def cluster_named(text: str, here: Cluster) -> Cluster:
    """Return the cluster that a text describes.

    Args:
        text: ``8xH200``, or ``16x32`` for 16 workers of 32 cores, each as fast as one of this machine's; either with
            ``@100Gbps`` for the network of each node.
        here: this machine, whose memory and storage per core and node the workers are taken to have.

    Raises:
        ConfigError: it is neither.
    """
    found = SHAPE.fullmatch(text.strip())
    if found is None or int(found["count"]) == 0 or found["kind"] == "0":
        raise ConfigError(
            f"--cluster: is {text!r}; write 8xH200 (kinds: {', '.join(DGX)}), or 16x32 for 16 workers of 32 cores, "
            "with @100Gbps after either for another network"
        )
    count, kind = int(found["count"]), found["kind"]
    network = float(found["gbps"]) * GBPS if found["gbps"] else None
    if kind.isdigit():
        cores = int(kind)
        memory = here.node.memory_bytes / here.node.cores * cores
        node = dataclasses.replace(here.node, cores=cores, memory_bytes=memory, network=network or DEFAULT_NETWORK)
        return Cluster(text, "cpu", count, count, node, "cores and storage as measured here, network assumed")
    if kind.upper() not in DGX:
        raise ConfigError(f"--cluster: {kind} is not known; choose from {', '.join(DGX)}, or give cores as a number")
    node = DGX[kind.upper()]
    nodes, per_node = -(-count // node.gpus), min(count, node.gpus)
    share = per_node / node.gpus if nodes == 1 else 1.0
    node = dataclasses.replace(
        node,
        gpus=per_node,
        cores=max(1, int(node.cores * share)),
        memory_bytes=node.memory_bytes * share,
        network=network or node.network,
    )
    return Cluster(
        text, kind.upper(), nodes, count, node, "data sheets, assumed; a core as fast as one of this machine"
    )
