from __future__ import annotations

import math

import numpy as np
import pytest

from distspectral.planning.simulation import Cluster, ProcessorSharing, Task, makespan

TOO_EARLY = 1 - 1e-9
"""Rounding of sums of 10^3 float64."""


@pytest.mark.parametrize(("n_tasks", "slots", "waves"), [(1, 4, 1), (4, 4, 1), (5, 4, 2), (12, 4, 3), (13, 4, 4)])
def test_equal_tasks_come_in_whole_waves(n_tasks, slots, waves):
    found = makespan([Task(core_s=2.0)] * n_tasks, Cluster(slots))
    assert found.seconds == pytest.approx(2.0 * waves)
    assert found.bounds["slots"] == pytest.approx(2.0 * n_tasks / slots)


def test_transfers_that_begin_together_share_a_bandwidth():
    cluster = Cluster(slots=8, disk_read=10.0)
    assert makespan([Task(read=20.0)] * 2, cluster).seconds == pytest.approx(4.0)
    # the shorter of two ends when both have had its bytes, and the longer goes on alone
    assert makespan([Task(read=10.0), Task(read=30.0)], cluster).seconds == pytest.approx(4.0)


def test_a_transfer_that_joins_another_slows_it_down():
    storage = ProcessorSharing(nodes=1)
    storage.add(0.0, 4.0, 0, 0)
    storage.add(2.0, 1.0, 0, 1)
    assert storage.next_end == pytest.approx(4.0)  # half the rate since 2
    assert storage.pop(storage.next_end) == (0, 1)
    assert storage.next_end == pytest.approx(5.0)  # one of its four was left, alone again
    assert storage.pop(storage.next_end) == (0, 0)
    assert storage.next_end == math.inf


def test_a_lone_transfer_has_one_node_s_bandwidth():
    cluster = Cluster(slots=8, disk_read=40.0, nodes=4)
    assert makespan([Task(read=40.0)], cluster).seconds == pytest.approx(4.0)
    assert makespan([Task(read=40.0)] * 8, cluster).seconds == pytest.approx(8.0)


def test_a_task_reads_then_computes_then_writes():
    cluster = Cluster(slots=2, cores=2.0, disk_read=10.0, disk_write=5.0)
    alone = Task(read=10.0, core_s=4.0, gpu_s=1.0, written=10.0)
    assert makespan([alone], cluster).seconds == pytest.approx(1 + 2 + 2)
    assert makespan([Task(gpu_s=3.0, core_s=4.0)], cluster).seconds == pytest.approx(3.0)  # both at once
    # on one slot a second task waits, though storage has nothing to do while the first one computes
    assert makespan([alone] * 2, Cluster(1, 2.0, 10.0, 5.0)).seconds == pytest.approx(10.0)


def test_bytes_over_bandwidth_is_all_that_counts_where_storage_is_slow():
    tasks = [Task(read=30.0, core_s=1e-3, written=10.0)] * 400
    found = makespan(tasks, Cluster(slots=50, disk_read=100.0, disk_write=50.0))
    assert found.seconds == pytest.approx(400 * (0.3 + 0.2), rel=1e-3)
    assert found.limit == "storage"
    narrow = makespan(tasks, Cluster(slots=50, disk_read=100.0, disk_write=50.0, network=20.0))
    assert narrow.seconds == pytest.approx(400 * 40 / 20, rel=1e-3)
    assert narrow.limit == "network"


def test_one_huge_task_is_as_long_as_all():
    tasks = [Task(core_s=1.0)] * 99 + [Task(core_s=50.0)]
    found = makespan(tasks, Cluster(slots=100))
    assert found.seconds == pytest.approx(50.0)
    assert found.limit == "longest task"


def test_tasks_of_no_length_take_the_driver_s_time():
    found = makespan([Task()] * 3000, Cluster(slots=1000, hand_out_s=1e-3))
    assert found.seconds == pytest.approx(3.0)
    assert found.limit == "hand-out"
    # and slots beyond those that the driver can keep busy stand idle
    assert makespan([Task(core_s=0.01)] * 3000, Cluster(1000, hand_out_s=1e-3)).seconds == pytest.approx(3.01)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_done_sooner_than_any_resource_allows(seed):
    rng = np.random.default_rng(seed)
    slots, nodes = int(rng.integers(1, 40)), int(rng.integers(1, 5))
    amounts = rng.lognormal(0.0, 1.0, (int(rng.integers(1, 300)), 4)) * rng.integers(0, 2, 4)
    tasks = [Task(*row) for row in amounts.tolist()]
    read, write, network, cores = rng.lognormal(3.0, 1.0, 4).tolist()
    cluster = Cluster(slots, cores, read, write, network, nodes, float(rng.choice([0.0, 0.01])))
    found = makespan(tasks, cluster)
    assert set(found.bounds) == {"slots", "accelerators", "storage", "network", "hand-out", "longest task"}
    for name, bound in found.bounds.items():
        assert found.seconds >= bound * TOO_EARLY, name
    one_by_one = sum(
        cluster.hand_out_s + nodes * (cluster.reading(task) + cluster.writing(task)) + cluster.computing(task)
        for task in tasks
    )
    assert found.seconds <= one_by_one / TOO_EARLY
