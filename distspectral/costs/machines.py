"""Machines that a run is reckoned for, as plain values."""

from __future__ import annotations

import dataclasses


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
class Machines:
    """Nodes of one kind.

    Attributes:
        name: as they were asked for.
        kind: what prices are looked up by: ``cpu`` or the accelerator's name.
        nodes: how many.
        workers: training workers at most, one per accelerator where there are any.
        node: each.
        source: where the node's numbers come from.
        uses_ray: whether Ray is started; otherwise everything is one process.
        all_train: whether ``ray.workers`` is their number, so that all of them train; otherwise as many as are useful.
    """

    name: str
    kind: str
    nodes: int
    workers: int
    node: Node
    source: str
    uses_ray: bool = True
    all_train: bool = False

    @property
    def cores(self) -> int:
        """Of all nodes."""
        return self.nodes * self.node.cores

    @property
    def gpu(self) -> Gpu | None:
        """The accelerator, None without any."""
        return self.node.gpu
