"""Machines a run may be planned for: this one as measured, more of its cores, or accelerators from their data sheets.

The plan prints beside them whether their numbers were measured or taken from data sheets.

Data sheets: NVIDIA H200, H100 and A100 Tensor Core GPU (SXM): memory, memory bandwidth and dense bfloat16 rate, which
is half of the one with sparsity that brochures lead with. Hosts: NVIDIA DGX H200, DGX H100 and DGX A100: cores, system
memory, network adapters. Storage rates of hosts are those of a modest NVMe array, for vendors give none.
"""

from __future__ import annotations

import dataclasses
import os
import re

import psutil

from distspectral.costs.machines import Gpu, Machines, Node
from distspectral.errors import ConfigError

MEASURED = "measured here"
GBPS = 1e9 / 8
"""Bytes per second of a gigabit per second."""
DEFAULT_NETWORK = 10 * GBPS
SHAPE = re.compile(r"(?P<count>\d+)\s*x\s*(?P<kind>\w+)(?:@(?P<gbps>\d+(?:\.\d+)?)Gbps)?", re.ASCII)


DGX = {
    "H200": Node(112, 2e12, 10e9, 5e9, 400 * GBPS, 8, Gpu(141e9, 4.8e12, 989e12)),
    "H100": Node(112, 2e12, 10e9, 5e9, 400 * GBPS, 8, Gpu(80e9, 3.35e12, 989e12)),
    "A100": Node(128, 2e12, 10e9, 5e9, 200 * GBPS, 8, Gpu(80e9, 2.039e12, 312e12)),
}
"""Nodes of eight accelerators; the network is that of one adapter."""


def this_machine(workers: int | None, disk_read: float, disk_write: float) -> Machines:
    """Return this machine, whose storage was measured.

    Args:
        workers: training workers of the config; None = as many as are useful, at most one a core.
        disk_read: bytes per second.
        disk_write: bytes per second.
    """
    cores, memory = os.cpu_count() or 1, float(psutil.virtual_memory().total)
    node = Node(cores, memory, disk_read, disk_write, DEFAULT_NETWORK)
    all_train = workers is not None
    return Machines("this machine", "cpu", 1, workers or cores, node, MEASURED, all_train=all_train)


def machines_named(text: str, here: Machines) -> Machines:
    """Return the machines that a text describes.

    Args:
        text: ``8xH200``, or ``16x32`` for 16 workers of 32 cores, each as fast as one of this machine's; either with
            ``@100Gbps`` for the network of each node.
        here: this machine, whose memory and storage per core and node the workers are taken to have.

    Raises:
        ConfigError: it is neither.
    """
    found = SHAPE.fullmatch(text.strip())
    network = float(found["gbps"]) * GBPS if found and found["gbps"] else None
    if found is None or int(found["count"]) == 0 or found["kind"] == "0" or network == 0:
        raise ConfigError(
            f"--cluster: is {text!r}; write 8xH200 (kinds: {', '.join(DGX)}), or 16x32 for 16 workers of 32 cores, "
            "with @100Gbps after either for another network"
        )
    count, kind = int(found["count"]), found["kind"]
    if kind.isdigit():
        cores = int(kind)
        memory = here.node.memory_bytes / here.node.cores * cores
        node = dataclasses.replace(here.node, cores=cores, memory_bytes=memory, network=network or DEFAULT_NETWORK)
        return Machines(text, "cpu", count, count, node, "cores and storage as measured here, network assumed")
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
    return Machines(
        text, kind.upper(), nodes, count, node, "data sheets, assumed; a core as fast as one of this machine"
    )
