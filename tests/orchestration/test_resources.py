from __future__ import annotations

from pathlib import Path

import pytest

from distspectral.config import load_config
from distspectral.config.ray import RayConfig
from distspectral.errors import ConfigError, UnknownKeyError
from distspectral.orchestration.resources import request
from distspectral.stages import NAMES
from tests.runs import write_run


def test_every_stage_can_be_given_resources() -> None:
    config = RayConfig.model_validate({"use_gpu": False, "resources": {name: {"num_cpus": 3} for name in NAMES}})
    assert {request(config, name).num_cpus for name in NAMES} == {3}


def test_a_stage_asks_for_what_its_section_says_and_the_others_for_what_all_do(tmp_path: Path) -> None:
    section = {"num_cpus": 4, "num_gpus": 0.5, "memory": "8GiB", "labels": {"market": "spot"}}
    path = write_run(tmp_path, ray={"use_gpu": False, "cpus_per_task": 2, "resources": {"neighbors": section}})
    config = load_config(path).ray
    asked = request(config, "neighbors")
    expected = {"num_cpus": 4, "num_gpus": 0.5, "memory": 8 << 30, "label_selector": {"market": "spot"}}
    assert asked.options == expected
    assert asked.bundle == {"CPU": 4, "GPU": 0.5, "memory": 8 << 30}
    assert asked.n_threads == 4
    assert request(config, "pack").options == {"num_cpus": 2}
    assert request(config, "train").bundle == {"CPU": 1}


def test_gpus_are_asked_for_where_they_are_granted_and_by_the_stages_that_use_them() -> None:
    config = RayConfig(use_gpu=True)
    assert {
        stage: request(config, stage).num_gpus for stage in ("pack", "graph", "autoencoder", "codes", "train", "embed")
    } == {
        "pack": 0,
        "graph": 0,
        "autoencoder": 1,
        "codes": 1,
        "train": 1,
        "embed": 1,
    }
    assert request(RayConfig(use_gpu=True, resources={"embed": {"num_gpus": 0}}), "embed").options == {"num_cpus": 1}


def test_slots_are_counted_by_the_scarcest_resource() -> None:
    asked = request(RayConfig(use_gpu=False, resources={"train": {"num_cpus": 2, "num_gpus": 1}}), "train")
    assert asked.slots({"CPU": 16.0, "GPU": 3.0}) == 3
    assert asked.slots({"CPU": 5.0, "GPU": 3.0}) == 2
    assert asked.slots({"CPU": 16.0}) == 0


def test_a_stage_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trian is no stage; there are pack, "):
        load_config(write_run(tmp_path, ray={"resources": {"trian": {"num_gpus": 1}}}))
    with pytest.raises(UnknownKeyError, match="num_gpu"):
        load_config(write_run(tmp_path / "2", ray={"resources": {"train": {"num_gpu": 1}}}))
