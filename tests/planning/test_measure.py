from __future__ import annotations

import numpy as np
import pytest

from distspectral.config.load import load_config
from distspectral.planning import sample
from distspectral.planning.machines import this_machine
from distspectral.planning.measure import measure
from distspectral.planning.model import Model
from distspectral.planning.stopwatch import ALONE, Stopwatch
from distspectral.planning.workload import workload
from distspectral.storage.source.dataset import Source
from tests.runs import LEARNED, N_ROWS, write_metric_run, write_run


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(sample, "PROBE_BYTES", 1 << 22)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    config = load_config(write_run(folder, **LEARNED))
    source = Source.open(config.data)
    before = sorted(folder.rglob("*"))
    rates = measure(config, source, str(folder))
    assert sorted(folder.rglob("*")) == before  # nothing is left behind
    return config, rates


def test_every_rate_that_the_formulas_ask_for_is_measured(learned):
    config, rates = learned
    work = workload(config, rates.dim)
    assert rates.sample_rows == N_ROWS
    assert set(rates.steps) == {"autoencoder", "siamese", "train"}
    for us in rates.core_us.values():
        assert us >= 0
    assert rates.core_us["codes"] > 0
    assert rates.disk_write > 0
    stages = Model(1e6, work, rates, this_machine(1, 1e9, 1e9)).stages()
    assert [one.stage for one in stages] == list(config.chain(rates.dim))
    assert all(np.isfinite(one.seconds) for one in stages)


def test_kept_bytes_are_those_of_the_shards(learned):
    _, rates = learned
    assert rates.kept_bytes["codes"] == pytest.approx(8 + 3 * 4 + 8, rel=0.5)  # id, codes, label, and some framing
    assert rates.kept_bytes["train"] == 0


def test_a_metric_is_measured_too(tmp_path):
    config = load_config(write_metric_run(tmp_path))
    rates = measure(config, Source.open(config.data), str(tmp_path))
    stages = Model(1e6, workload(config, rates.dim), rates, this_machine(1, 1e9, 1e9)).stages()
    assert [one.stage for one in stages] == ["pack", "train", "encode", "evaluate"]


def test_the_sample_is_spread_over_the_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 30)
    config = load_config(write_run(tmp_path))
    source = Source.open(config.data)
    _, n_rows = sample.copy_sample(source, str(tmp_path / "sample"))
    assert n_rows == 31  # shares are rounded up
    copied = [block.vectors for block in sample.read_us(source, 30)[1]]
    firsts = [
        next(iter(source.read_blocks(shard))).vectors[:n]
        for shard, n in zip(source.shards, (13, 8, 10), strict=True)  # 50, 30 and 40 rows have shares of 30
    ]
    np.testing.assert_array_equal(np.concatenate(copied), np.concatenate(firsts))


def test_a_stopwatch_tells_tasks_from_the_stage_around_them():
    watch = Stopwatch()
    watch.started("pack")
    assert list(watch.tasks("pack")(lambda item: sum(range(item)), [200_000, 200_000], "packing")) == [19999900000] * 2
    sum(range(2_000_000))
    watch.finished("pack", 1.5)
    assert 0 < watch.spent["pack", "packing"] < watch.spent["pack", ALONE]
    assert watch.core_seconds("pack") == watch.spent["pack", "packing"] + watch.spent["pack", ALONE]
    assert watch.wall == {"pack": 1.5}
