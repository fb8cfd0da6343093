from __future__ import annotations

import numpy as np
import pytest

from distspectral.config.load import load_config
from distspectral.errors import ConfigError
from distspectral.graph.contraction import BY_ROW as CONTRACTION
from distspectral.planning.bills import stage_bills
from distspectral.planning.machines import this_machine
from distspectral.planning.measure import measure
from distspectral.planning.sample import copy_sample, read_us
from distspectral.planning.stopwatch import ALONE, Stopwatch
from distspectral.stages.pack import PACK
from distspectral.storage.source.dataset import Source
from tests.runs import LEARNED, N_ROWS, write_metric_run, write_run

PROBE_BYTES = 1 << 22


def bills(config, rates):
    recipe = config.recipe(rates.dim)
    return stage_bills(1e6, recipe, config.settings(recipe), rates, this_machine(1, 1e9, 1e9))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    config = load_config(write_run(folder, **LEARNED))
    source = Source.open(config.data)
    before = sorted(folder.rglob("*"))
    rates = measure(config, source, str(folder), PROBE_BYTES)
    assert sorted(folder.rglob("*")) == before  # nothing is left behind
    return config, rates


def test_every_rate_that_the_formulas_ask_for_is_measured(learned):
    config, rates = learned
    assert rates.sample_rows == N_ROWS
    assert set(rates.steps) == {"autoencoder", "siamese", "train", "distill", "map"}
    kinds = {
        "pack": {"packing"},
        "autoencoder": set(),
        "codes": {"encoding", "network", "judging codes"},
        "graph": {
            *("weighing edges", "taking scales", "joining scales", "counting degrees"),
            *("joining row numbers", "naming small components", *CONTRACTION),
        },
        "siamese": set(),
        "features": {"encoding", "network"},
        "reweight": {"reweighting edges", "taking the median", "counting degrees", "copying components"},
        "train": {"scan"},
        "polish": {"encoding", "network", "polishing"},
        "distill": set(),
        "calibrate": {"encoding", "calibrating", "certifying", "network", "seeking edges"},
        "cluster": {"embedding a sample", "reading sampled edges", "reading row numbers"},
        "tree": {
            *("placing rows", "joining leaves", "adding up edges", "fitting outliers", "network"),
            *("embedding a sample", "reading sampled edges"),
        },
        "map": {"scan"},
        "embed": {"embedding", "network"},
        "exemplars": {"finding exemplars"},
    }
    assert {stage: set(us) for stage, us in rates.core_us.items() if stage != "neighbors"} == kinds
    assert all(us >= 0 for of_stage in rates.core_us.values() for us in of_stage.values())
    assert rates.core_us["codes"]["encoding"] > 0
    assert rates.alone_s["cluster"] > 0
    assert rates.disk_write > 0
    made = bills(config, rates)
    assert tuple(one.stage for one in made) == config.recipe(rates.dim).chain
    assert all(np.isfinite(one.seconds) for one in made)


def test_kept_bytes_are_those_of_the_shards(learned):
    _, rates = learned
    assert rates.kept_bytes["codes"] == pytest.approx(8 + 3 * 4 + 8, rel=0.5)  # id, codes, label, and some framing
    assert rates.kept_bytes["train"] == 0
    assert rates.row_numbers == {"neighbors": 8, "graph": 8, "reweight": 8}


def test_a_metric_is_measured_too(tmp_path):
    config = load_config(write_metric_run(tmp_path))
    rates = measure(config, Source.open(config.data), str(tmp_path), PROBE_BYTES)
    assert set(rates.core_us["embed"]) == {"encoding", "network"}
    assert [one.stage for one in bills(config, rates)] == ["pack", "train", "embed", "evaluate"]


def test_a_metric_is_timed_at_its_own_batch_only(tmp_path):
    dscl = {"n_components": 130, "rows_per_class": 30}  # 256 rows in place of 300 would be too few classes for it
    brief = {"batch_size": 300, "device": "cpu"}
    config = load_config(write_metric_run(tmp_path, dscl=dscl, network={"hidden": [256]}, train=brief))
    step = measure(config, Source.open(config.data), str(tmp_path), PROBE_BYTES).steps["train"]
    assert step.fixed_s == 0


def test_a_network_of_unknown_size_is_refused_by_its_name(tmp_path):
    config = load_config(write_metric_run(tmp_path, network={"trunk": "torch.nn:Linear"}))
    with pytest.raises(ConfigError, match=r"network\.trunk: is torch\.nn:Linear, whose cost") as refused:
        measure(config, Source.open(config.data), str(tmp_path), PROBE_BYTES)
    assert list(refused.value.parameters) == ["network.trunk", "network.hidden"]


def test_the_sample_is_spread_over_the_shards(tmp_path):
    config = load_config(write_run(tmp_path))
    source = Source.open(config.data)
    _, n_rows = copy_sample(source, str(tmp_path / "sample"), 30)
    assert n_rows == 31  # shares are rounded up
    copied = [block.vectors for block in read_us(source, 30)[1]]
    firsts = [
        next(iter(source.read_blocks(shard))).vectors[:n]
        for shard, n in zip(source.shards, (13, 8, 10), strict=True)  # 50, 30 and 40 rows have shares of 30
    ]
    np.testing.assert_array_equal(np.concatenate(copied), np.concatenate(firsts))


def test_a_stopwatch_tells_tasks_from_the_stage_around_them():
    watch = Stopwatch()
    watch.started("pack")
    assert list(watch.mapper(PACK)(lambda item: sum(range(item)), [200_000, 200_000], "packing")) == [19999900000] * 2
    sum(range(2_000_000))
    watch.finished("pack", 1.5)
    assert 0 < watch.spent["pack", "packing"] < watch.spent["pack", ALONE]
    assert watch.core_seconds("pack") == watch.spent["pack", "packing"] + watch.spent["pack", ALONE]
    assert watch.wall == {"pack": 1.5}
