from __future__ import annotations

import dataclasses
import itertools

import pytest

from distspectral.calibration.sampled_sums import n_ends
from distspectral.embedding.forward import BLOCK_ROWS
from distspectral.models.map_network import N_ANCHORS
from distspectral.planning.bills import stage_bills
from distspectral.planning.machines import machines_named, this_machine
from distspectral.stages.trial import TRYING
from distspectral.training.growth import N_JUDGED
from tests.planning.constructed import CORE_US, SEARCH, TRAINED, config, machines, rates

METRIC = {"objective": "dscl", "data": {"path": "/nowhere", "label_column": "label"}}
GPUS = machines_named("8xH200", this_machine(2, 2e9, 1e9))


def stages(n_rows=1e6, found=None, on=None, **sections):
    run = config(**sections)
    recipe = run.recipe(96, n_rows)
    bills = stage_bills(n_rows, recipe, run.settings(recipe), found or rates(), on or machines())
    return {bill.stage: bill for bill in bills}


def n_weights(*widths):
    return sum(a * b for a, b in itertools.pairwise(widths))


ENCODER, SIAMESE, FUNCTIONS = (
    n_weights(96, 128, 128, 128, 24),
    n_weights(24, 256, 256, 10),
    n_weights(34, 512, 256, 22),
)
MAP = n_weights(34 + 14, 512, 256, N_ANCHORS, 2)


DESCENT = {"distill": {"enabled": False}}


def term(bill, resource):
    return next(one for one in bill.terms if one.resource == resource)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"representation": "input", "affinity": {"space": "euclidean"}},
        {"representation": "pca"},
        {"siamese": {"use": "rebuild"}},
        METRIC,
    ],
)
def test_every_stage_of_the_chain_has_a_bill(sections):
    assert tuple(stages(**sections)) == config(**sections).recipe(96).chain


def test_cores_share_rows_and_the_longest_of_cores_and_storage_counts():
    pack = stages()["pack"]
    assert term(pack, "cores").seconds == pytest.approx(1e6 * (4 + 4) / 1e6 / 4)
    assert term(pack, "cores").formula == "N x (4 read + 4 pack) us / 4 cores"
    assert term(pack, "storage").seconds == pytest.approx(400e6 / 2e9 + 100e6 / 1e9)
    assert pack.seconds == pytest.approx(2 + 0.5)  # cores outlast storage; the fixed half second is the driver's
    assert pack.limit == "cores"
    slow = stages(found=rates(disk_write=1e7), on=machines(cores=4))["pack"]
    assert term(slow, "storage").seconds == pytest.approx(0.2 + 0.1)  # a cluster has its own disks


def test_cores_reckon_components_and_one_task_joins_numbers_of_rows():
    few, many = (stages(1e8, on=machines(cores=n))["graph"] for n in (4, 4000))
    assert term(few, "driver").seconds == term(many, "driver").seconds == pytest.approx(3.0)
    assert term(few, "cores").seconds == pytest.approx(1e8 * (4 + 0.5 + 0.25 + 1.0) / 1e6 / 4)
    assert term(few, "cores").seconds == pytest.approx(1000 * term(many, "cores").seconds)


def test_what_the_driver_holds_does_not_grow_with_the_rows():
    for stage in ("pack", "graph", "reweight", "cluster"):
        few, many = (stages(n)[stage].driver_bytes for n in (1e8, 1e9))
        assert few == many, stage


def test_components_are_not_reckoned_again_where_the_edges_stay():
    assert term(stages(1e8)["reweight"], "driver").seconds == 0
    assert term(stages(1e8)["reweight"], "cores").seconds == pytest.approx(1e8 * 4.25 / 1e6 / 4)


def test_training_does_not_grow_with_rows_that_fit_into_memory():
    small, large = stages(1e5)["autoencoder"], stages(1e7)["autoencoder"]
    assert term(small, "steps").seconds == term(large, "steps").seconds
    assert term(small, "steps").seconds == pytest.approx(2000 * (0.001 + 256 * 1e-5))


def test_rows_that_are_not_polished_are_not_held_whole():
    polished, sampled = (stages(n)["calibrate"] for n in (1e6, 1e9))
    assert polished.worker_bytes > 2**31 > sampled.worker_bytes


def test_rows_beyond_memory_are_read_one_by_one():
    found = rates(kept_bytes={"codes": 100.0, "features": 100.0})
    far = stages(1e10, found=found, train={"batches": "mapped"})["train"]
    misses = 1 - 0.5 * 64e9 / (1e10 * 200)
    assert term(far, "steps").seconds == pytest.approx(2000 * misses * 1024 * 2 * 2 * 1e-4)
    assert "not in memory" in term(far, "steps").formula


def test_batches_of_many_rows_are_drawn_before_and_read_in_order():
    few, many = (stages(n, **DESCENT)["train"] for n in (1e6, 1e9))
    assert few.scratch == 0
    n_records = 2 * 1024 * (2000 + N_JUDGED)
    n_bytes = n_records * (4 * 34 + 8)
    assert many.scratch == many.written == 2 * n_bytes
    assert many.read == pytest.approx(few.read + 2 * n_bytes)
    assert term(many, "steps").seconds == term(few, "steps").seconds
    assert term(many, "draw").seconds == pytest.approx((2 * n_records * 1e-4 + 2 * 4e-6 * 1e9) / 4)
    assert many.worker_bytes < few.worker_bytes, "no worker holds the affinity of every row"


def test_workers_share_a_batch_and_pay_an_all_reduce():
    pair = stages(on=machines(workers=2), **DESCENT)["train"]
    reduce = 1e-3 + 2 * 4 * FUNCTIONS / 1e9
    assert term(pair, "steps").seconds == pytest.approx(2000 * (0.001 + 512 * 1e-5 + reduce))
    assert pair.sent == 2000 * 2 * 4 * FUNCTIONS
    assert stages(**DESCENT)["train"].sent == 0


def test_training_is_shared_by_no_more_workers_than_are_useful_unless_the_config_says_so():
    many = machines(workers=64)
    assert (
        term(stages(on=many, **DESCENT)["train"], "steps").seconds
        == term(stages(on=machines(workers=2), **DESCENT)["train"], "steps").seconds
    )
    said = dataclasses.replace(many, all_train=True)
    assert stages(on=said, **DESCENT)["train"].sent == 2000 * 2 * 4 * FUNCTIONS * 63


def test_calibration_takes_at_least_as_long_as_one_task():
    one, many = (stages(n, on=machines(cores=64), **DESCENT)["calibrate"] for n in (1e6, 2**22))
    assert term(one, "cores").seconds == pytest.approx(1e6 * 4 / 1e6 / 64 + 2**16 * 4 / 1e6)
    assert term(many, "cores").seconds == pytest.approx(2**22 * 8 / 1e6 / 64)


def test_calibration_of_many_rows_grows_with_the_lists_alone():
    some, many = (stages(n, on=machines(cores=64))["calibrate"] for n in (1e8, 2e8))
    more = 1e8 * CORE_US["calibrate"]["seeking edges"] / 1e6 / 64
    assert term(many, "cores").seconds - term(some, "cores").seconds == pytest.approx(more)
    assert many.read - some.read == pytest.approx(1e8 * rates().kept_bytes["reweight"])
    assert (many.scratch, many.driver_bytes) == (some.scratch, some.driver_bytes)
    n_functions = some.settings["train"].n_functions
    of_sample = n_ends(n_functions, 15)
    assert some.scratch == pytest.approx(4 * n_functions * of_sample)
    assert term(some, "cores").seconds > 1e8 * 2 / 1e6 / 64 + of_sample * 4 / 1e6 / 64


def test_calibration_of_taught_functions_sums_no_edges():
    taught = stages(1e6, on=machines(cores=64))["calibrate"]
    assert term(taught, "cores").seconds == pytest.approx(1e6 * 4 / 1e6 / 64)


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


def test_cells_are_chosen_in_a_time_that_grows_with_their_number():
    found = rates(core_us=CORE_US | {"neighbors": {"choosing cells": 50.0}}, alone_s={})
    as_measured, more = (term(stages(n, found)["neighbors"], "driver").seconds for n in (60_000, 1e8))
    assert as_measured == pytest.approx(40_000 * 50 / 1e6)
    assert more > 10 * as_measured


def test_the_driver_holds_cells_and_not_rows_of_the_search():
    few, many = (stages(n)["neighbors"] for n in (1e6, 1e8))
    assert few.driver_bytes - 4e8 == pytest.approx(1e6 / (40_000 / SEARCH.cells) * (4 * SEARCH.dim + 4 * 64), rel=0.01)
    assert few.driver_bytes < many.driver_bytes < 4e8 + 1e9


def test_ways_are_tried_on_as_many_rows_whatever_the_rows():
    found = rates(core_us=CORE_US | {"trial": {TRYING: 50.0}}, alone_s={})
    few, some, many = (term(stages(n, found)["trial"], "driver").seconds for n in (2_000, 40_000, 1e8))
    assert few == pytest.approx(some / 2)
    assert some == many == pytest.approx(40_000 * 50 / 1e6)  # measured on a sample of more than are tried


def test_neighbours_beyond_four_billion_rows_have_wider_numbers():
    assert stages(4e9)["graph"].kept == pytest.approx(4e9 * 100)
    assert stages(5e9)["graph"].kept == pytest.approx(5e9 * (100 + 4 * 15))


@pytest.mark.parametrize("shape", [None, "8xH200", "16x32"])
def test_more_rows_never_cost_less(shape):
    here = this_machine(2, 2e9, 1e9)
    on = here if shape is None else machines_named(shape, here)
    sizes = (6e4, 1e5, 3e5, 1e6, 1e7, 1e8, 1e9, 1e10)
    plans = [stages(n, on=on) for n in sizes]
    for before, after in itertools.pairwise(plans):
        for name, bill in before.items():
            if name not in after:  # a graph that does not fit is learned by descent alone
                assert name in ("polish", "distill")
                continue
            if name == "calibrate" and "polish" not in after:
                continue  # it is then judged by a sample of its rows
            for value in ("seconds", "kept", "moved", "worker_bytes", "driver_bytes", "node_hours"):
                # drawing batches may be cheaper than what it replaces: one worker that scans all edges by itself;
                # the last tasks of a few leave cores idle
                least = 0.85 if name in TRAINED else 0.99 if name == "neighbors" else 1 - 1e-9
                assert getattr(after[name], value) >= getattr(bill, value) * least, (name, value)


def test_maps_wait_for_each_other_and_in_each_the_slowest_resource_counts():
    pack = stages(1e8)["pack"]
    pack.terms, pack.core_s, pack.read, pack.written = [], 80.0, 4e9, 0.0
    machines_, (one, *_) = pack.machines, pack.maps
    pack.maps = [dataclasses.replace(one, cores=1, read=0), dataclasses.replace(one, cores=3, read=1)]
    computing, reading = 80.0 / machines_.cores, 4e9 / machines_.node.disk_read / machines_.nodes
    assert pack.seconds == pytest.approx(computing / 4 + max(3 * computing / 4, reading))
    pack.maps = [dataclasses.replace(one, n_tasks=1)]
    assert pack.seconds == pytest.approx(max(80.0, reading)), "one task has one core"
    pack.maps = []
    pack.add("cores", 5.0, "five")
    pack.add("start", 2.0, "two")
    assert pack.seconds == 7


def test_accelerators_take_networks_and_pairs_off_the_cores():
    fast = stages(1e9, on=GPUS)
    for name, weights in (("codes", ENCODER), ("features", SIAMESE), ("embed", ENCODER + SIAMESE + FUNCTIONS + MAP)):
        assert term(fast[name], "GPUs").seconds == pytest.approx(1e9 * 2 * weights / (0.3 * 989e12) / 8)
    assert term(fast["codes"], "cores").seconds == pytest.approx(1e9 * (4 - 3) / 1e6 / (3 * 8)), "three beside each GPU"
    assert "solve" not in term(fast["neighbors"], "cores").formula
    assert "feed" in term(fast["neighbors"], "cores").formula
    assert "pairs" in term(fast["neighbors"], "GPUs").formula
    assert term(fast["train"], "steps").seconds > 2000 * 5e-3


def test_ray_takes_time_to_begin():
    before, after = stages(), stages(on=machines(uses_ray=True))
    assert after["pack"].seconds - before["pack"].seconds == pytest.approx(2)
    assert after["train"].seconds - before["train"].seconds == pytest.approx(20)


def test_shared_storage_passes_the_network_of_several_nodes():
    far = dataclasses.replace(machines(nodes=4), node=dataclasses.replace(machines().node, network=1e6))
    pack = stages(on=far)["pack"]
    assert term(pack, "network").seconds == pytest.approx(500e6 / 1e6 / 4)
    assert pack.limit == "network"
    assert pack.node_hours == pytest.approx(4 * pack.seconds / 3600)


def test_an_encoder_or_a_map_that_is_not_needed_costs_embedding_nothing():
    bare = stages(1e9, on=GPUS, train={"inputs": ["vector"]}, embed={"columns": ["cluster"]})["embed"]
    assert term(bare, "GPUs").seconds == pytest.approx(1e9 * 2 * n_weights(96, 512, 256, 22) / (0.3 * 989e12) / 8)


def test_an_autoencoder_has_twice_the_weights_of_its_encoder():
    apart = stages(on=dataclasses.replace(machines(workers=2), all_train=True))
    assert apart["autoencoder"].sent == 2000 * 2 * 4 * 2 * ENCODER
    assert apart["siamese"].sent == 1500 * 2 * 4 * SIAMESE


def test_what_the_driver_did_beyond_the_facts_does_not_grow_with_the_rows():
    found = rates(alone_s={"graph": 0.25})
    assert term(stages(1e8, found)["graph"], "driver").seconds == pytest.approx(3.25)


def test_judging_a_metric_compares_all_pairs():
    found = rates(alone_s={"evaluate": 0.08})  # 2 us of a row of the sample
    evaluate = stages(4e5, found, **METRIC)["evaluate"]
    assert term(evaluate, "cores").seconds == pytest.approx(4e5 * (8 + 2) * 10 / 1e6 / 4)


def test_judging_rows_as_they_are_compares_sampled_ones_with_all():
    found = rates(core_us={"evaluate": {"comparing rows": 30.0}}, sample_rows=2048)  # each asks 2,048
    many, more = (term(stages(n_rows, found, **METRIC)["evaluate"], "cores").seconds for n_rows in (4e5, 8e5))
    assert many == pytest.approx(4e5 * 30 * 4 / 1e6 / 4), "8,192 ask"
    assert more == pytest.approx(2 * many), "as many ask of more"


def test_a_stage_holds_rows_as_wide_as_its_network_s_widest_layer():
    wide, narrow = (stages(autoencoder={"hidden": [500, width]})["codes"].worker_bytes for width in (2000, 1000))
    assert wide - narrow == pytest.approx(BLOCK_ROWS * 4 * 2 * 1000)


def test_fine_leaves_are_told_in_one_task_and_take_memory_there():
    found = rates(core_us={"tree": {"tying rows": 20.0, "adding up fine edges": 1.0}})
    coarse, fine = (stages(1e8, found, cluster={"n_leaves": n_leaves})["tree"] for n_leaves in (4_096, 1_000_000))
    assert term(fine, "driver").seconds == pytest.approx(1e8 * 20e-6)
    assert term(fine, "cores").seconds == pytest.approx(term(coarse, "cores").seconds + 1e8 * 1e-6 / 4)
    assert fine.worker_bytes - coarse.worker_bytes == pytest.approx(100e8)
    assert fine.driver_bytes == coarse.driver_bytes
