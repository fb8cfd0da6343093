"""How long tasks take on slots that share storage: an event-driven simulation, which knows neither stages nor rows.

The driver hands tasks out one after the other. Each waits for a free slot, reads, computes and writes there, and frees
it (list scheduling). Transfers in flight share one bandwidth equally (processor sharing). What a closed formula leaves
out shows: whole tasks on whole slots, storage that waits while tasks compute and tasks that wait for storage, the last
task.

Times are seconds, amounts bytes.

References: Graham: *Bounds on Multiprocessing Timing Anomalies*, SIAM J. Appl. Math. 17(2), 1969 (list scheduling);
Kleinrock: *Time-shared Systems: A Theoretical Treatment*, J. ACM 14(2), 1967 (processor sharing); Demers, Keshav,
Shenker: *Analysis and Simulation of a Fair Queueing Algorithm*, SIGCOMM 1989 (virtual time).
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        read: bytes, before it computes.
        core_s: core-seconds.
        gpu_s: seconds of an accelerator, while its cores work.
        written: bytes, once it has computed.
    """

    read: float = 0.0
    core_s: float = 0.0
    gpu_s: float = 0.0
    written: float = 0.0


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where tasks run.

    Attributes:
        slots: tasks that run at once.
        cores: that a task uses.
        disk_read: bytes per second of all storage together.
        disk_write: likewise; storage that writes does not read meanwhile.
        network: bytes per second between all nodes and storage; infinite where disks are the nodes' own.
        nodes: that share these rates: one transfer gets at most what one of them has.
        hand_out_s: that the driver takes for each task.
    """

    slots: int
    cores: float = 1.0
    disk_read: float = math.inf
    disk_write: float = math.inf
    network: float = math.inf
    nodes: int = 1
    hand_out_s: float = 0.0

    def reading(self, task: Task) -> float:
        """Return the seconds of a task's reading, were all bandwidth its own."""
        return task.read / min(self.disk_read, self.network)

    def writing(self, task: Task) -> float:
        """Return the seconds of a task's writing, were all bandwidth its own."""
        return task.written / min(self.disk_write, self.network)

    def computing(self, task: Task) -> float:
        """Return the seconds of a task between reading and writing."""
        return max(task.core_s / self.cores, task.gpu_s)


@dataclasses.dataclass(frozen=True)
class Makespan:
    """What tasks took, and what they cannot take less than.

    Attributes:
        seconds: until the last task is done.
        bounds: seconds that each resource alone asks for, none of them above ``seconds``.
    """

    seconds: float
    bounds: dict[str, float]

    @property
    def limit(self) -> str:
        """The resource that asks for most."""
        return max(self.bounds, key=self.bounds.__getitem__)


class ProcessorSharing:
    """Transfers that share one bandwidth equally, each as much as one node has at most.

    Virtual time is the service that every transfer has had since the beginning: it advances by 1 / n per second while
    n transfers are in flight. A transfer ends at the virtual time of its beginning plus its demand, however many come
    and go meanwhile, so that a heap knows the next one.

    Args:
        nodes: that it takes to use the whole bandwidth.
    """

    def __init__(self, nodes: int) -> None:
        self._nodes, self._now, self._virtual = nodes, 0.0, 0.0
        self._ends: list[tuple[float, int, int]] = []

    def add(self, now: float, demand: float, phase: int, task: int) -> None:
        """Begin a transfer that takes so many seconds of the whole bandwidth."""
        self._advance(now)
        heapq.heappush(self._ends, (self._virtual + demand, task, phase))

    @property
    def next_end(self) -> float:
        """When the next transfer ends, if none is added before; infinite if there is none."""
        if not self._ends:
            return math.inf
        return self._now + max(self._ends[0][0] - self._virtual, 0.0) * self._slowness

    def pop(self, now: float) -> tuple[int, int]:
        """End the next transfer; return its phase and its task."""
        self._advance(now)
        end, task, phase = heapq.heappop(self._ends)
        self._virtual = end  # what rounding left of it
        return phase, task

    @property
    def _slowness(self) -> float:
        """Seconds of a second's worth of service."""
        return float(max(len(self._ends), self._nodes))

    def _advance(self, now: float) -> None:
        self._virtual += (now - self._now) / self._slowness
        self._now = now


READ, WRITE = 0, 1


def makespan(tasks: Sequence[Task], cluster: Cluster) -> Makespan:
    """Return when tasks that are handed out in order are all done; a heap for each resource, so 10^5 take seconds.

    Args:
        tasks: at least one.
        cluster: where they run.
    """
    storage, computing = ProcessorSharing(cluster.nodes), list[tuple[float, int]]()
    now, handed_out, free, left = 0.0, 0, cluster.slots, len(tasks)
    while left:
        waits = free and handed_out < len(tasks)
        begin = max(now, (handed_out + 1) * cluster.hand_out_s) if waits else math.inf
        computed = computing[0][0] if computing else math.inf
        now = min(begin, computed, storage.next_end)
        if now == begin:
            storage.add(now, cluster.reading(tasks[handed_out]), READ, handed_out)
            handed_out, free = handed_out + 1, free - 1
        elif now == computed:
            _, task = heapq.heappop(computing)
            storage.add(now, cluster.writing(tasks[task]), WRITE, task)
        else:
            phase, task = storage.pop(now)
            if phase == READ:
                heapq.heappush(computing, (now + cluster.computing(tasks[task]), task))
            else:
                free, left = free + 1, left - 1
    return Makespan(now, lower_bounds(tasks, cluster))


def lower_bounds(tasks: Sequence[Task], cluster: Cluster) -> dict[str, float]:
    """Return what tasks take at least, by what they would wait for if all else took no time."""
    alone = (
        cluster.nodes * (cluster.reading(task) + cluster.writing(task)) + cluster.computing(task) for task in tasks
    )
    return {
        "slots": sum(task.core_s for task in tasks) / cluster.cores / cluster.slots,
        "accelerators": sum(task.gpu_s for task in tasks) / cluster.slots,
        "storage": sum(task.read / cluster.disk_read + task.written / cluster.disk_write for task in tasks),
        "network": sum(task.read + task.written for task in tasks) / cluster.network,
        "hand-out": len(tasks) * cluster.hand_out_s,
        "longest task": max(alone),
    }
