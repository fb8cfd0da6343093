from __future__ import annotations

import dataclasses
import itertools

import pytest

from distspectral.planning.machines import machines_named, this_machine
from distspectral.planning.model import Model
from distspectral.planning.workload import workload
from tests.planning.constructed import SEARCH, cluster, config, rates

DEFAULT = workload(config(), 96)


def stages(n_rows=1e6, work=DEFAULT, found=None, machines=None):
    sheets = Model(n_rows, work, found or rates(), machines or cluster()).stages()
    return {sheet.stage: sheet for sheet in sheets}


def term(sheet, resource):
    return next(one for one in sheet.terms if one.resource == resource)


def test_stages_are_those_of_the_chain():
    assert list(stages()) == list(config().chain(96))
    plain = config(representation="input", affinity={"space": "euclidean"})
    assert list(stages(work=workload(plain, 96))) == list(plain.chain(96))
    assert not {"autoencoder", "codes", "siamese", "features", "reweight"} & set(plain.chain(96))
    rebuilt = config(siamese={"use": "rebuild"})
    assert list(stages(work=workload(rebuilt, 96))) == list(rebuilt.chain(96))
    metric = config(objective="dscl", data={"path": "/nowhere", "label_column": "label"})
    assert list(stages(work=workload(metric, 96))) == ["pack", "train", "encode", "evaluate"]


def test_cores_share_rows_and_the_longest_of_cores_and_storage_counts():
    pack = stages()["pack"]
    assert term(pack, "cores").seconds == pytest.approx(1e6 * (4 + 4) / 1e6 / 4)
    assert term(pack, "cores").formula == "N x (4 read + 4 pack) us / 4 cores"
    assert term(pack, "storage").seconds == pytest.approx(400e6 / 2e9 + 100e6 / 1e9)
    assert pack.seconds == pytest.approx(2 + 0.5)  # cores outlast storage; the fixed half second is the driver's
    assert pack.limit == "cores"
    slow = stages(found=rates(disk_write=1e7), machines=cluster(cores=4))["pack"]
    assert term(slow, "storage").seconds == pytest.approx(0.2 + 0.1)  # a cluster has its own disks


def test_the_driver_alone_reckons_components_whatever_the_cores():
    few, many = (stages(1e8, machines=cluster(cores=n))["graph"] for n in (4, 4000))
    assert term(few, "driver").seconds == term(many, "driver").seconds == pytest.approx(150.0)
    assert many.limit == "driver"
    assert few.driver_bytes == pytest.approx(4e8 + 32 * 1e8)


def test_components_are_not_reckoned_again_where_the_edges_stay():
    assert term(stages(1e8)["reweight"], "driver").seconds == pytest.approx(40.0)


def test_training_does_not_grow_with_rows_that_fit_into_memory():
    small, large = stages(1e5)["autoencoder"], stages(1e7)["autoencoder"]
    assert term(small, "steps").seconds == term(large, "steps").seconds
    assert term(small, "steps").seconds == pytest.approx(4000 * (0.001 + 256 * 1e-5))


def test_rows_beyond_memory_are_read_one_by_one():
    found = rates(kept_bytes={"codes": 100.0, "features": 100.0})
    far = stages(1e10, found=found)["train"]
    misses = 1 - 0.5 * 64e9 / (1e10 * 200)
    assert term(far, "steps").seconds == pytest.approx(2000 * misses * 1024 * 2 * 2 * 1e-4)
    assert "not in memory" in term(far, "steps").formula


def test_workers_share_a_batch_and_pay_an_all_reduce():
    work = DEFAULT.trainings["train"]
    pair = stages(machines=cluster(workers=2))["train"]
    reduce = 1e-3 + 2 * 4 * work.weights / 1e9
    assert term(pair, "steps").seconds == pytest.approx(2000 * (0.001 + 512 * 1e-5 + reduce))
    assert pair.sent == 2000 * 2 * 4 * work.weights
    assert stages()["train"].sent == 0


def test_calibration_has_no_more_tasks_than_millions_of_rows():
    one, many = (stages(n, machines=cluster(cores=64))["calibrate"] for n in (1e6, 64 * 2**20))
    assert term(one, "cores").seconds == pytest.approx(1e6 * 4 / 1e6 / 64 + 1e6 * 4 / 1e6)
    assert term(many, "cores").seconds == pytest.approx(64 * 2**20 * 8 / 1e6 / 64)


def test_k_means_sees_a_sample():
    assert term(stages(1e4)["cluster"], "driver").seconds == pytest.approx(0.2)
    assert term(stages(1e9)["cluster"], "driver").seconds == pytest.approx(4.0)


def test_search_is_quadratic_until_rows_are_cut_into_cells():
    exact = term(stages(4e4)["neighbors"], "cores").seconds
    assert exact == pytest.approx(4e4**2 * 0.01 / 1e6 / 4)
    cut = stages(1e6)["neighbors"]
    assert "solve" in term(cut, "cores").formula
    assert cut.scratch > 0
    doubled = rates(searches={"neighbors": SEARCH.model_copy(update={"truth_us": 4.0})})
    more = term(stages(1e6, found=doubled)["neighbors"], "cores").seconds - term(cut, "cores").seconds
    assert more == pytest.approx(1e6 * 2 / 1e6 / 4)


def test_neighbours_beyond_four_billion_rows_have_wider_numbers():
    assert stages(4e9)["graph"].kept == pytest.approx(4e9 * 100)
    assert stages(5e9)["graph"].kept == pytest.approx(5e9 * (100 + 4 * 15))


@pytest.mark.parametrize("shape", [None, "8xH200", "16x32"])
def test_more_rows_never_cost_less(shape):
    machines = this_machine(2, 2e9, 1e9)
    machines = machines if shape is None else cluster_named(shape, machines)
    sizes = (6e4, 1e5, 3e5, 1e6, 1e7, 1e8, 1e9, 1e10)
    plans = [stages(n, machines=machines) for n in sizes]
    for before, after in itertools.pairwise(plans):
        for name, sheet in before.items():
            for value in ("seconds", "kept", "moved", "worker_bytes", "driver_bytes", "node_hours"):
                assert getattr(after[name], value) >= getattr(sheet, value) * (1 - 1e-9), (name, value)


def test_accelerators_take_networks_and_pairs_off_the_cores():
    machines = cluster_named("8xH200", this_machine(2, 2e9, 1e9))
    fast = stages(1e9, machines=machines)
    flops = 2 * DEFAULT.networks["codes"]
    assert term(fast["codes"], "GPUs").seconds == pytest.approx(1e9 * flops / (0.3 * 989e12) / 8)
    assert term(fast["codes"], "cores").seconds == pytest.approx(1e9 * (4 - 3) / 1e6 / 112)
    assert "solve" not in term(fast["neighbors"], "cores").formula
    assert "pairs" in term(fast["neighbors"], "GPUs").formula
    assert term(fast["train"], "steps").seconds > 2000 * 5e-3


def test_ray_takes_time_to_begin():
    assert stages(machines=cluster(uses_ray=True))["pack"].seconds - stages()["pack"].seconds == pytest.approx(2)
    assert stages(machines=cluster(uses_ray=True))["train"].seconds - stages()["train"].seconds == pytest.approx(20)


def test_shared_storage_passes_the_network_of_several_nodes():
    far = dataclasses.replace(cluster(nodes=4), node=dataclasses.replace(cluster().node, network=1e6))
    pack = stages(machines=far)["pack"]
    assert term(pack, "network").seconds == pytest.approx(500e6 / 1e6 / 4)
    assert pack.limit == "network"
    assert pack.node_hours == pytest.approx(4 * pack.seconds / 3600)
