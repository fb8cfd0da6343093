from __future__ import annotations

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from distspectral.bench.simulate import HAND_OUT_S, SPREAD, simulated_plan, simulated_stage
from distspectral.cli.app import EXIT_REFUSED, app
from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig
from distspectral.graph.runs import run_count, shard_runs
from distspectral.graph.search.cuts import block_cuts, merge_runs, read_runs, run_counts
from distspectral.planning.bills import stage_bills
from distspectral.planning.machines import machines_named, this_machine
from distspectral.storage.artifact.manifest import Shard
from tests.planning.constructed import CORE_US, SEARCH, config, machines, rates
from tests.runs import write_run

HERE = this_machine(1, 2e9, 1e9)


def bills(n_rows=1e9, on=None, **sections):
    run = config(**sections)
    recipe = run.recipe(96, n_rows)
    made = stage_bills(n_rows, recipe, run.settings(recipe), rates(), on or machines_named("8xH200", HERE))
    return {bill.stage: bill for bill in made}


@pytest.mark.parametrize("n_rows", [5_000, 60_000, 1_000_000, 30_000_001])
@pytest.mark.parametrize("block_rows", [None, 10_000])
@pytest.mark.parametrize("memory", [1 << 27, 1 << 30])
def test_tasks_are_counted_as_they_are_cut(n_rows, block_rows, memory):
    graph = GraphConfig(block_rows=block_rows, task_memory=memory)
    blocks = block_cuts(n_rows, 24, graph)
    parts = merge_runs(blocks, graph)
    assert run_counts(n_rows, 24, graph) == (len(read_runs(blocks, 24, graph)), len(parts))
    shards = [Shard(name="", n_rows=n_rows // len(parts), n_bytes=1, sha256="", details={}) for _ in parts]
    whole = len(shards) * shards[0].n_rows
    assert run_count(whole, len(shards)) == len(shard_runs(shards))


def test_a_search_hands_out_four_maps_and_a_graph_works_on_the_last_one_s_shards():
    cores = machines(cores=64)
    # a run of 300,000 rows x 16 handed out 19, 19, 63 and 19 tasks; the groups of its cells are halves of halves
    assert [one.n_tasks for one in bills(3e5, cores)["neighbors"].maps] == [19, 19, 64, 19]
    found = bills(1e9, cores)
    n_read, n_merged = run_counts(10**9, SEARCH.dim, config().graph)
    assert [one.n_tasks for one in found["neighbors"].maps][::3] == [n_read, n_merged]
    assert {one.n_tasks for one in found["graph"].maps} == {n_merged}
    assert found["reweight"].maps[0].n_tasks == n_merged


@pytest.mark.parametrize("sections", [{}, {"distill": {"enabled": False}}])
@pytest.mark.parametrize("stage", ["pack", "graph", "calibrate"])
def test_maps_share_the_bytes_of_their_stage(stage, sections):
    on, run = machines(cores=64), config(**sections)
    recipe, us = run.recipe(96, 1e6), {"comparing ids": 1.0, "sorting ids": 1.0}
    found = rates(core_us=CORE_US | {"pack": CORE_US["pack"] | us})
    made = {bill.stage: bill for bill in stage_bills(1e6, recipe, run.settings(recipe), found, on)}
    bill = made[stage]
    assert len(bill.maps) > 1
    assert sum(one.read for one in bill.maps) == pytest.approx(bill.read)
    if stage in ("pack", "graph"):
        assert sum(one.written for one in bill.maps) == pytest.approx(bill.written)


@pytest.mark.parametrize("n_rows", [3e4, 1e6, 1e9])
@pytest.mark.parametrize(
    "sections",
    [
        {"distill": {"enabled": False}},
        {"representation": "pca"},
        {"siamese": {"use": "rebuild"}},
        {"graph": {"connect": "nearest"}},
        {"graph": {"path": "/nowhere"}},
        {"objective": "dscl", "data": {"path": "/nowhere", "label_column": "label"}},
    ],
)
def test_no_stage_is_simulated_sooner_than_its_own_cores_and_accelerators_allow(n_rows, sections):
    for on in (machines_named("8xH200", HERE), machines_named("4x16", HERE), machines(uses_ray=False)):
        for bill in bills(n_rows, on, **sections).values():
            found = simulated_stage(bill)
            turns = sum(term.seconds for term in bill.terms if term.resource in ("driver", "start", "steps"))
            gpu_s = sum(term.seconds for term in bill.terms if term.resource == "GPUs")
            least = turns + max(bill.core_s / on.cores, gpu_s)
            assert found["simulated_seconds"] >= least * (1 - 1e-9), bill.stage
            assert found["tasks"] == sum(one.n_tasks for one in bill.maps)


def test_many_tasks_for_each_core_take_what_the_plan_says_if_they_read_nothing():
    graph = bills(1e8, machines(cores=4))["graph"]
    assert simulated_stage(graph)["ratio"] > 1.05  # they read first and compute then
    graph.read = graph.written = 0.0
    assert simulated_stage(graph)["ratio"] == pytest.approx(1.0, abs=0.05)


def test_a_map_of_fewer_tasks_than_cores_leaves_the_others_idle():
    pca = bills(1e9, machines(cores=1024, uses_ray=True), representation="pca")["pca"]
    pca.core_s, pca.read = 1024 * 10.0, 0.0
    found = simulated_stage(pca)
    assert pca.maps[0].n_tasks == 64
    assert found["simulated_seconds"] > 2 + pca.core_s / 64
    assert found["limited_by"] == "longest task"


def test_all_that_the_driver_does_adds_up():
    pack = bills(1e6)["pack"]
    before = simulated_stage(pack)
    pack.add("driver", 100.0, "more")
    after = simulated_stage(pack)
    assert after["simulated_seconds"] == pytest.approx(before["simulated_seconds"] + 100)
    assert before["limited_by"] != "driver" == after["limited_by"]


def test_trainings_stay_as_they_are_planned():
    train = bills()["train"]
    found = simulated_stage(train)
    assert found["simulated_seconds"] == found["planned_seconds"] == train.seconds
    assert found["tasks"] == 0
    assert found["limited_by"] == train.limit


def test_a_task_of_a_network_has_an_accelerator_and_its_three_threads():
    codes = bills()["codes"]
    (forward,) = codes.maps
    assert simulated_stage(codes)["simulated_seconds"] > codes.core_s / (8 * 3)
    forward.threads = 14.0
    assert simulated_stage(codes)["simulated_seconds"] < codes.core_s / (8 * 3)


def test_hand_outs_add_up_where_ray_hands_out():
    pack = bills()["pack"]
    pack.core_s = pack.read = pack.written = 0.0
    in_turn = sum(term.seconds for term in pack.terms if term.resource in ("driver", "start"))
    n_tasks = sum(one.n_tasks for one in pack.maps)
    assert simulated_stage(pack)["simulated_seconds"] == pytest.approx(in_turn + n_tasks * HAND_OUT_S)
    pack.machines = dataclasses.replace(pack.machines, uses_ray=False)
    assert simulated_stage(pack)["simulated_seconds"] == pytest.approx(in_turn)


def test_more_tasks_than_can_be_simulated_are_refused():
    with pytest.raises(ConfigError, match=r"--rows: .* tasks of pack are too many to simulate"):
        simulated_plan(list(bills(1e13).values()))


def test_the_same_seed_tells_the_same():
    made = list(bills(1e8).values())
    assert simulated_plan(made) == simulated_plan(made)
    assert simulated_plan(made, seed=1) != simulated_plan(made)


def test_the_command_shows_stages_totals_and_what_is_assumed(tmp_path, monkeypatch):
    monkeypatch.setattr("distspectral.planning.measure.measure", lambda *_: rates(dim=5))
    path = str(write_run(tmp_path))
    arguments = ["bench", "simulate", path, "--rows", "1e9", "--cluster", "8xH200"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.stderr
    headings = ("planned seconds", "simulated seconds", "ratio", "tasks", "limited by")
    for text in (*headings, "pack", "all", f"{SPREAD:.0%}", "1,000,000"):
        assert text in shown.stdout, text
    result = CliRunner().invoke(app, [*arguments, "--json"])
    found = json.loads(result.stdout)
    stages = found["stages"]
    whole = stages.pop("all")
    assert whole["tasks"] == sum(one["tasks"] for one in stages.values())
    for key in ("planned_seconds", "simulated_seconds"):
        assert whole[key] == pytest.approx(sum(one[key] for one in stages.values()))
    assert whole["simulated_seconds"] > whole["planned_seconds"]
    assert whole["ratio"] == pytest.approx(whole["simulated_seconds"] / whole["planned_seconds"])
    refused = CliRunner().invoke(app, [*arguments[:-1], "8xabacus"])
    assert refused.exit_code == EXIT_REFUSED
