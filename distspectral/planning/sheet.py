"""One stage's costs as they add up: terms by resource, each with its formula in words; no machine is asked anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from distspectral.planning.machines import ASSUMED, Cluster

GPU_SHARE = 0.3
"""Part of an accelerator's dense rate that small perceptrons reach."""
GPU_STEP_S = 5e-3
"""Least time of a training step on an accelerator: launches, the small factorisations, the loop in Python."""
STAGE_S, TRAINING_S = 2.0, 20.0
"""What Ray takes to begin a stage, and a group of training workers."""
REDUCE_S = 1e-3
"""Latency of an all-reduce among workers."""
WITHIN_NODE = 1e9
"""Bytes per second of an all-reduce among CPU workers of one machine."""
NVLINK = 1e11
"""Likewise among accelerators."""
CACHE_SHARE = 0.5
"""Part of a host's memory that holds mapped files."""
MISS_S = 1e-4
"""One scattered read of a row that is not in memory."""

ASSUMPTIONS = (
    ("share of an accelerator's dense bfloat16 rate", f"{GPU_SHARE:.0%}", ASSUMED),
    ("least time of a training step on an accelerator", f"{GPU_STEP_S * 1e3:g} ms", ASSUMED),
    ("start of a stage, of training, under Ray", f"{STAGE_S:g} s, {TRAINING_S:g} s", "measured on two cores before"),
    ("all-reduce on one node", f"{REDUCE_S * 1e3:g} ms + bytes at {WITHIN_NODE:.0e}, GPUs {NVLINK:.0e} B/s", ASSUMED),
    ("share of host memory that caches mapped files", f"{CACHE_SHARE:.0%}", ASSUMED),
    ("scattered read of a row outside that cache", f"{MISS_S * 1e6:g} us", ASSUMED),
)
"""What no sample tells, printed with every plan: name, value, source."""

IN_TURN = ("driver", "steps", "scan", "start")
"""Resources whose times add up; those of the others overlap, and the longest counts."""


@dataclasses.dataclass(frozen=True)
class Term:
    """What one resource takes: seconds, and how they come about."""

    resource: str
    seconds: float
    formula: str


@dataclasses.dataclass
class Sheet:
    """A stage of a run of so many rows on a cluster.

    Attributes:
        stage: its name.
        n_rows: N.
        cluster: the machines.
        terms: by resource.
        read: bytes from storage.
        written: bytes to storage.
        sent: bytes between training workers.
        kept: bytes that stay on storage afterwards.
        scratch: bytes on storage beyond these while the stage works.
        worker_bytes: peak memory of a worker.
        driver_bytes: peak memory of the driver.
    """

    stage: str
    n_rows: float
    cluster: Cluster
    terms: list[Term] = dataclasses.field(default_factory=list)
    read: float = 0.0
    written: float = 0.0
    sent: float = 0.0
    kept: float = 0.0
    scratch: float = 0.0
    worker_bytes: float = 0.0
    driver_bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """Wall-clock time."""
        overlapping = [term.seconds for term in self.terms if term.resource not in IN_TURN]
        return sum(term.seconds for term in self.terms if term.resource in IN_TURN) + max(overlapping, default=0.0)

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        return max(self.terms, key=lambda term: term.seconds).resource if self.terms else "nothing"

    @property
    def moved(self) -> float:
        """Bytes read, written and sent."""
        return self.read + self.written + self.sent

    @property
    def node_hours(self) -> float:
        """Nodes times hours."""
        return self.cluster.nodes * self.seconds / 3600

    def cores(self, parts: Mapping[str, float], most: float = float("inf")) -> None:
        """Add work of the cores: microseconds a row by what is done, on at most so many cores at a time."""
        n_cores = min(self.cluster.cores, max(1.0, most))
        total = sum(parts.values())
        words = " + ".join(f"{us:.3g} {name}" for name, us in parts.items())
        self.add("cores", self.n_rows * total / 1e6 / n_cores, f"N x ({words}) us / {n_cores:,.0f} cores")

    def driver(self, parts: Mapping[str, float], fixed_s: float = 0.0) -> None:
        """Add work of the driver alone: microseconds a row by what is done, and seconds whatever the rows."""
        words = [f"{us:.3g} {name}" for name, us in parts.items()]
        formula = f"N x ({' + '.join(words)}) us + {fixed_s:.2g} s" if words else f"{fixed_s:.2g} s"
        self.add("driver", self.n_rows * sum(parts.values()) / 1e6 + fixed_s, formula)

    def gpus(self, flops: float) -> None:
        """Add so many operations a row on the accelerators."""
        gpu = self.cluster.gpu
        assert gpu is not None, self.cluster
        rate = GPU_SHARE * gpu.flops
        seconds = self.n_rows * flops / rate / self.cluster.workers
        words = f"{GPU_SHARE:g} x {gpu.flops / 1e12:.0f} Tflop/s x {self.cluster.workers}"
        self.add("GPUs", seconds, f"N x {flops / 1e6:.3g} Mflop / ({words})")

    def start(self, training: bool = False) -> None:
        """Add what Ray takes to begin, if it is used."""
        if self.cluster.uses_ray:
            seconds = TRAINING_S if training else STAGE_S
            self.add("start", seconds, f"{seconds:g} s")

    def storage(self) -> None:
        """Add what reading and writing take: local disks on one node, else storage that all nodes share."""
        node, nodes = self.cluster.node, self.cluster.nodes
        seconds = (self.read / node.disk_read + self.written / node.disk_write) / nodes
        words = f"{self.read / 1e9:.3g} GB read at {node.disk_read / 1e9:.2g}, {self.written / 1e9:.3g} written at "
        self.add("storage", seconds, f"{words}{node.disk_write / 1e9:.2g} GB/s x {nodes}")
        if nodes > 1:
            moved = self.read + self.written
            formula = f"{moved / 1e9:.3g} GB / ({node.network / 1e9:.3g} GB/s x {nodes})"
            self.add("network", moved / node.network / nodes, formula)

    def add(self, resource: str, seconds: float, formula: str) -> None:
        """Add a term."""
        self.terms.append(Term(resource, seconds, formula))
