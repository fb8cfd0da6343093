from __future__ import annotations

import pytest

from distspectral.errors import ConfigError
from distspectral.planning.machines import GBPS, machines_named, this_machine
from distspectral.planning.prices import load_prices

HERE = this_machine(2, 2e9, 1e9)


def test_accelerators_come_in_nodes_of_eight():
    eight, twelve, two = (machines_named(text, HERE) for text in ("8xH200", "12xh200", "2xH200"))
    assert (eight.nodes, eight.workers, eight.node.gpus, eight.cores) == (1, 8, 8, 112)
    assert (twelve.nodes, twelve.workers, twelve.kind) == (2, 12, "H200")
    assert (two.nodes, two.node.gpus, two.cores) == (1, 2, 28)


def test_workers_of_cores_are_this_machine_scaled():
    machines = machines_named("16x32@25Gbps", HERE)
    assert (machines.nodes, machines.workers, machines.cores, machines.gpu) == (16, 16, 512, None)
    assert machines.node.network == pytest.approx(25 * GBPS)
    assert machines.node.disk_read == HERE.node.disk_read
    assert machines.node.memory_bytes == pytest.approx(HERE.node.memory_bytes / HERE.node.cores * 32)


@pytest.mark.parametrize("text", ["H200", "0xH200", "8x0", "8xH200@0Gbps", "8xH200@fast", "x", ""])
def test_other_shapes_are_refused(text):
    with pytest.raises(ConfigError, match="--cluster: is"):
        machines_named(text, HERE)


def test_unknown_kinds_are_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="abacus is not known; choose from H200"):
        machines_named("8xabacus", HERE)


def test_prices_are_read_and_a_missing_kind_is_named(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("node_hour: {cpu: 1.5}\nstorage_gb_month: 0.02\ncurrency: EUR")
    prices = load_prices(str(path))
    assert prices.of_node("cpu", "prices.yaml") == 1.5
    with pytest.raises(ConfigError, match="no price for H200, only cpu"):
        prices.of_node("H200", "prices.yaml")


@pytest.mark.parametrize("text", ["node_hour: {cpu: -1}", "node_hours: {cpu: 1}", "[", "- a"])
def test_other_price_files_are_refused_with_an_example(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="write for example"):
        load_prices(str(path))
    with pytest.raises(ConfigError, match=r"absent\.yaml: not a list of prices"):
        load_prices(str(tmp_path / "absent.yaml"))
