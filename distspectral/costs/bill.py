"""What one stage takes, as it adds up: terms by resource, each with its formula in words; no machine is asked anything.

A stage declares its cost as a function that fills a :class:`Bill`. No term falls when the number of rows grows.
Shape letters: N rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from distspectral.costs.machines import Machines
from distspectral.costs.rates import Rates
from distspectral.recipes import Recipe
from distspectral.storage.source.pieces import piece_rows

ASSUMED = "assumed"
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
PCIE = 2.5e10
"""Bytes per second between a host and one of its accelerators."""
MISS_S = 1e-4
"""One scattered read of a row that is not in memory."""
SHARD_ROWS = 1_000_000
"""Rows of a source shard, unless it would be cut: large files are read in pieces."""
STREAM_THREADS = 3.0
"""Cores that a task beside an accelerator keeps busy: one thread reads ahead, one computes, one writes."""

ASSUMPTIONS = (
    ("share of an accelerator's dense bfloat16 rate", f"{GPU_SHARE:.0%}", ASSUMED),
    ("least time of a training step on an accelerator", f"{GPU_STEP_S * 1e3:g} ms", ASSUMED),
    ("start of a stage, of training, under Ray", f"{STAGE_S:g} s, {TRAINING_S:g} s", "measured on two cores before"),
    ("all-reduce on one node", f"{REDUCE_S * 1e3:g} ms + bytes at {WITHIN_NODE:.0e}, GPUs {NVLINK:.0e} B/s", ASSUMED),
    ("between a host and each of its accelerators", f"{PCIE:.2g} B/s", ASSUMED),
    ("share of host memory that caches mapped files", f"{CACHE_SHARE:.0%}", ASSUMED),
    ("scattered read of a row outside that cache", f"{MISS_S * 1e6:g} us", ASSUMED),
    ("rows of a source shard, at most", f"{SHARD_ROWS:,}", f"{ASSUMED}; bench simulate counts tasks by it"),
)
"""What no sample tells, printed with every plan: name, value, source."""

IN_TURN = ("driver", "draw", "steps", "scan", "start", "finish")
"""Resources whose times add up; those of the others overlap, and the longest counts."""

NETWORK = "network"
"""What a stage calls its forward pass among its pieces: the part that an accelerator takes off the cores."""


@dataclasses.dataclass(frozen=True)
class Term:
    """What one resource takes: seconds, and how they come about."""

    resource: str
    seconds: float
    formula: str


@dataclasses.dataclass
class Map:
    """Tasks that a stage hands out together; those of its next map wait for the last of them.

    Amounts are in any unit: they are the map's shares among the maps of its stage.

    Attributes:
        n_tasks: how many.
        cores: work of the cores.
        read: bytes from storage.
        written: bytes to storage.
        gpus: work of the accelerators; a task of such a map has one to itself, where there are any.
        threads: cores that a task beside an accelerator uses; any other task uses one.
    """

    n_tasks: int
    cores: float = 1.0
    read: float = 1.0
    written: float = 1.0
    gpus: float = 0.0
    threads: float = STREAM_THREADS

    def slots(self, machines: Machines) -> tuple[int, float]:
        """Return how many of its tasks can run at once, and how many cores each has."""
        if machines.gpu is not None and self.gpus > 0:
            return machines.workers, min(self.threads, machines.node.cores / machines.node.gpus)
        return machines.cores, 1.0


@dataclasses.dataclass(frozen=True)
class Amounts:
    """What all tasks of a map come to together: bytes, core-seconds, seconds of accelerators, bytes."""

    read: float
    core_s: float
    gpu_s: float
    written: float


@dataclasses.dataclass
class Bill:
    """A stage of a run of so many rows: what the formula may ask, and what it fills in.

    Attributes:
        stage: its name.
        n_rows: N.
        recipe: of the run.
        settings: sections of the config by name; of a stage that trains, its ``TrainSettings``.
        rates: measured.
        machines: that do the work.
        terms: by resource.
        read: bytes from storage.
        written: bytes to storage.
        sent: bytes between training workers.
        scratch: bytes on storage beyond those kept while the stage works.
        worker_bytes: peak memory of a worker.
        driver_bytes: peak memory of the driver.
        core_s: core-seconds of the tasks.
        maps: in which these and the bytes are handed out, one after the other; by default one, a task for each shard.
    """

    stage: str
    n_rows: float
    recipe: Recipe
    settings: Mapping[str, Any]
    rates: Rates
    machines: Machines
    terms: list[Term] = dataclasses.field(default_factory=list)
    read: float = 0.0
    written: float = 0.0
    sent: float = 0.0
    scratch: float = 0.0
    worker_bytes: float = 0.0
    driver_bytes: float = 0.0
    core_s: float = 0.0
    maps: list[Map] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.maps = [Map(self.n_shards)]
        self.worker_bytes += self.rates.base_bytes
        self.driver_bytes += self.rates.base_bytes

    # ---- what it comes to ------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Wall-clock time: maps wait for each other, and in each the resource that takes longest counts."""
        in_turn = sum(term.seconds for term in self.terms if term.resource in IN_TURN)
        if not self.maps:
            return in_turn + max((term.seconds for term in self.terms if term.resource not in IN_TURN), default=0.0)
        return in_turn + sum(map(self._longest, self.maps, self.amounts))

    @property
    def amounts(self) -> list[Amounts]:
        """What each map comes to: the bill's amounts, by the maps' shares."""
        gpu_s = sum(term.seconds for term in self.terms if term.resource == "GPUs") * self.machines.workers
        read, cores, gpus, written = (
            [getattr(one, kind) / (sum(getattr(other, kind) for other in self.maps) or 1.0) for one in self.maps]
            for kind in ("read", "cores", "gpus", "written")
        )
        return [
            Amounts(a * self.read, b * self.core_s, c * gpu_s, d * self.written)
            for a, b, c, d in zip(read, cores, gpus, written, strict=True)
        ]

    def _longest(self, one: Map, of: Amounts) -> float:
        """Return what a map takes if all its resources are busy at once."""
        node, nodes = self.machines.node, self.machines.nodes
        slots, cores = one.slots(self.machines)
        network = (of.read + of.written) / node.network if nodes > 1 else 0.0
        shared = max(of.read / node.disk_read + of.written / node.disk_write, network) / nodes
        return max(of.core_s / cores / min(slots, one.n_tasks), of.gpu_s / self.machines.workers, shared)

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        return max(self.terms, key=lambda term: term.seconds).resource if self.terms else "nothing"

    @property
    def kept(self) -> float:
        """Bytes that stay on storage afterwards."""
        return self.kept_by(self.stage)

    @property
    def moved(self) -> float:
        """Bytes read, written and sent."""
        return self.read + self.written + self.sent

    @property
    def node_hours(self) -> float:
        """Nodes times hours."""
        return self.machines.nodes * self.seconds / 3600

    # ---- what a formula may ask ------------------------------------------------------------------------------

    @property
    def n_shards(self) -> int:
        """Shards of the source, and of all whose rows lie as they do there; as many as cores, at least."""
        return max(math.ceil(self.n_rows / min(SHARD_ROWS, piece_rows(self.recipe.dim))), self.machines.cores)

    def us(self, kind: str) -> float:
        """Return the core-microseconds of a row in a kind of task or a piece of this stage, 0 where it has none."""
        return self.rates.core_us.get(self.stage, {}).get(kind, 0.0)

    @property
    def alone_s(self) -> float:
        """Core-seconds that the stage spent beside its tasks on the sample."""
        return self.rates.alone_s.get(self.stage, 0.0)

    def kept_by(self, *stages: str) -> float:
        """Return the bytes of stages' artifacts."""
        wide = 4 if self.n_rows > 2**32 else 0
        rates = self.rates
        return self.n_rows * sum(
            rates.kept_bytes.get(stage, 0.0) + wide * rates.row_numbers.get(stage, 0) for stage in stages
        )

    def n_weights(self, *trained: str) -> int:
        """Return the weights of the networks that stages train, biases left out: half their operations on a row."""
        return sum(a * b for stage in trained for a, b in itertools.pairwise(self.recipe.layers[stage]))

    def widest(self, *trained: str) -> int:
        """Return the width of the widest layer of the networks that stages train."""
        return max(width for stage in trained for width in self.recipe.layers[stage])

    # ---- what it fills in ------------------------------------------------------------------------------------

    def add(self, resource: str, seconds: float, formula: str) -> None:
        """Add a term."""
        self.terms.append(Term(resource, seconds, formula))

    def cores(self, parts: Mapping[str, float]) -> None:
        """Add work of the cores: microseconds a row by what is done."""
        words = " + ".join(f"{us:.3g} {name}" for name, us in parts.items())
        self.core_s = self.n_rows * sum(parts.values()) / 1e6
        self.add("cores", self.core_s / self.machines.cores, f"N x ({words}) us / {self.machines.cores:,.0f} cores")

    def driver(self, parts: Mapping[str, float], fixed_s: float = 0.0) -> None:
        """Add work of the driver alone: microseconds a row by what is done, and seconds whatever the rows."""
        words = [f"{us:.3g} {name}" for name, us in parts.items()]
        formula = f"N x ({' + '.join(words)}) us + {fixed_s:.2g} s" if words else f"{fixed_s:.2g} s"
        self.add("driver", self.n_rows * sum(parts.values()) / 1e6 + fixed_s, formula)

    def alone(self) -> None:
        """Add what the stage does beside its tasks, whatever the rows."""
        if self.alone_s:
            self.driver({}, self.alone_s)

    def through(
        self,
        trained: tuple[str, ...],
        us: float,
        then_us: float = 0.0,
        most: float = math.inf,
        threads: float = STREAM_THREADS,
    ) -> None:
        """Add rows through networks, which accelerators take off the cores, and then other work, in a map of its own.

        Args:
            trained: stages that train the networks.
            us: core-microseconds of a row, the networks included.
            then_us: of the other work.
            most: cores that can share the other work, because it has so many tasks; infinite if there is none.
            threads: cores that a task beside an accelerator uses.
        """
        cores, name = self.machines.cores, self.stage
        forward = Map(self.n_shards, us, gpus=1.0, threads=threads)
        slots, each = forward.slots(self.machines)
        feeding = min(slots, forward.n_tasks) * each
        if self.machines.gpu is not None:
            us, name = max(us - self.us(NETWORK), 0.0), f"{name} beside its network"
            self._gpus(2 * self.n_weights(*trained))
        self.core_s = self.n_rows * (us + then_us) / 1e6
        forward.cores = us
        self.maps = [forward]
        if most < math.inf:
            self.maps.append(Map(math.ceil(most), then_us))
        words = f"N x {us:.3g} us ({name}) / {feeding:,.0f} cores"
        if then_us:
            words += f"; then N x {then_us:.3g} us / {min(cores, most):,.0f} cores"
        self.add("cores", self.n_rows * (us / feeding + then_us / min(cores, most)) / 1e6, words)

    def _gpus(self, flops: float) -> None:
        """Add so many operations a row on the accelerators."""
        gpu, workers = self.machines.gpu, self.machines.workers
        assert gpu is not None, self.machines
        seconds = self.n_rows * flops / (GPU_SHARE * gpu.flops) / workers
        words = f"{GPU_SHARE:g} x {gpu.flops / 1e12:.0f} Tflop/s x {workers}"
        self.add("GPUs", seconds, f"N x {flops / 1e6:.3g} Mflop / ({words})")

    def start(self, training: bool) -> None:
        """Add what Ray takes to begin, if it is used."""
        if self.machines.uses_ray:
            seconds = TRAINING_S if training else STAGE_S
            self.add("start", seconds, f"{seconds:g} s")

    def storage(self) -> None:
        """Add what reading and writing take: local disks on one node, else storage that all nodes share."""
        node, nodes = self.machines.node, self.machines.nodes
        seconds = (self.read / node.disk_read + self.written / node.disk_write) / nodes
        words = f"{self.read / 1e9:.3g} GB read at {node.disk_read / 1e9:.2g}, {self.written / 1e9:.3g} written at "
        self.add("storage", seconds, f"{words}{node.disk_write / 1e9:.2g} GB/s x {nodes}")
        if nodes > 1:
            moved = self.read + self.written
            formula = f"{moved / 1e9:.3g} GB / ({node.network / 1e9:.3g} GB/s x {nodes})"
            self.add("network", moved / node.network / nodes, formula)
