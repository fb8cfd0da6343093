from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from distspectral.config import load_config
from distspectral.config.ray import RayConfig, StageResources, WorkerCount
from distspectral.errors import ConfigError, UnknownKeyError
from distspectral.orchestration.resources import MOST_CPUS_PER_GPU, request, workers_for
from distspectral.stages import NAMES
from distspectral.training.autoencoder import AutoencoderConfig
from distspectral.training.config import TrainConfig
from tests.runs import write_run


def test_every_stage_can_be_given_resources() -> None:
    config = RayConfig.model_validate({"use_gpu": False, "resources": {name: {"num_cpus": 3} for name in NAMES}})
    assert {request(config, name).num_cpus for name in NAMES} == {3}


def test_a_stage_asks_for_what_its_section_says_and_the_others_for_what_all_do(tmp_path: Path) -> None:
    section = {"num_cpus": 4, "num_gpus": 0.5, "memory": "8GiB", "labels": {"market": "spot"}}
    path = write_run(tmp_path, ray={"use_gpu": False, "cpus_per_task": 2, "resources": {"neighbors": section}})
    config = load_config(path).ray
    asked = request(config, "neighbors", on_gpu=True, nodes=[])
    expected = {"num_cpus": 4, "num_gpus": 0.5, "memory": 8 << 30, "label_selector": {"market": "spot"}}
    assert asked.options == expected
    assert asked.bundle == {"CPU": 4, "GPU": 0.5, "memory": 8 << 30}
    assert asked.n_threads == 4
    elsewhere = {"num_cpus": 2, "memory": 8 << 30, "label_selector": {"market": "spot"}}
    assert request(config, "neighbors").options == elsewhere, "parts without a GPU need none of its CPUs"
    assert request(config, "pack").options == {"num_cpus": 2}
    assert request(config, "train").bundle == {"CPU": 1}


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    """A node as ``ray.nodes()`` tells of it, by the fields that are read."""
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": 1e12} | ({"GPU": gpus} if gpus else {})}


def test_gpus_are_asked_for_by_parts_that_are_faster_on_one_where_they_are_granted() -> None:
    eight = [node(112, 8)]
    for stage in ("neighbors", "codes", "train", "polish", "distill", "calibrate"):
        assert request(RayConfig(), stage, on_gpu=True, nodes=eight).num_gpus == 1
        assert request(RayConfig(use_gpu=True), stage, on_gpu=False, nodes=eight).num_gpus == 0
        assert request(RayConfig(), stage, on_gpu=True, nodes=[node(112)]).num_gpus == 0
        assert request(RayConfig(use_gpu=False), stage, on_gpu=True, nodes=eight).num_gpus == 0
    none = RayConfig(use_gpu=True, resources={"embed": {"num_gpus": 0}})
    assert request(none, "embed", on_gpu=True, nodes=eight).options == {"num_cpus": 1}


def test_training_takes_gpus_where_there_is_one_for_each_worker_and_other_work_where_there_is_any() -> None:
    three = [node(8, 1, alive=False), node(8, 1), node(16, 2)]
    assert request(RayConfig(workers=3), "train", on_gpu=True, nodes=three).num_gpus == 1
    assert request(RayConfig(workers=4), "train", on_gpu=True, nodes=three).num_gpus == 0
    assert request(RayConfig(workers=4), "neighbors", on_gpu=True, nodes=three).num_gpus == 1
    elastic = RayConfig.model_validate({"workers": {"min": 3, "max": 9}})
    assert request(elastic, "train", on_gpu=True, nodes=three).num_gpus == 1


def test_what_gets_a_gpu_gets_its_share_of_the_nodes_cpus_too() -> None:
    nodes = [node(112, 8), node(64), node(48, 4), node(2, 1, alive=False)]
    config = RayConfig(use_gpu=True)
    assert request(config, "embed", on_gpu=True, nodes=nodes).bundle == {"CPU": 12, "GPU": 1}
    assert request(config, "embed", on_gpu=True, nodes=nodes).n_threads == 12
    assert request(config, "train", on_gpu=True, nodes=[node(256, 8)]).bundle == {"CPU": MOST_CPUS_PER_GPU, "GPU": 1}
    assert request(config, "train", on_gpu=True, nodes=[node(2, 4)]).bundle == {"CPU": 1, "GPU": 1}
    assert request(config, "train", on_gpu=True, nodes=[]).bundle == {"CPU": 1, "GPU": 1}, "nodes yet to start"
    half = config.model_copy(update={"resources": {"embed": StageResources(num_gpus=0.5)}})
    assert request(half, "embed", on_gpu=True, nodes=nodes).bundle == {"CPU": 6, "GPU": 0.5}
    said = config.model_copy(update={"resources": {"embed": StageResources(num_cpus=3)}})
    assert request(said, "embed", on_gpu=True, nodes=nodes).bundle == {"CPU": 3, "GPU": 1}


def test_eight_gpus_search_and_all_cpus_route() -> None:
    total, nodes = {"CPU": 112.0, "GPU": 8.0}, [node(112, 8)]
    assert request(RayConfig(), "neighbors", on_gpu=True, nodes=nodes).slots(total) == 8
    assert request(RayConfig(), "neighbors", on_gpu=False, nodes=nodes).slots(total) == 112


def test_slots_are_counted_by_the_scarcest_resource() -> None:
    config = RayConfig(use_gpu=False, resources={"train": {"num_cpus": 2, "num_gpus": 1}})
    asked = request(config, "train", on_gpu=True, nodes=[])
    assert asked.slots({"CPU": 16.0, "GPU": 3.0}) == 3
    assert asked.slots({"CPU": 5.0, "GPU": 3.0}) == 2
    assert asked.slots({"CPU": 16.0}) == 0


def test_a_stage_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trian is no stage; there are pack, "):
        load_config(write_run(tmp_path, ray={"resources": {"trian": {"num_gpus": 1}}}))
    with pytest.raises(UnknownKeyError, match="num_gpu"):
        load_config(write_run(tmp_path / "2", ray={"resources": {"train": {"num_gpu": 1}}}))


# ---- how many workers train --------------------------------------------------------------------------------------


def test_as_many_workers_train_as_shorten_a_step_and_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "distspectral")
    train = TrainConfig(batch_size=4 * TrainConfig.useful_share + 1)
    assert workers_for("auto", train, on_gpu=False, n_slots=3) == 3
    assert workers_for("auto", train, on_gpu=False, n_slots=0) == 1, "of nodes yet to start"
    assert caplog.messages == []
    assert workers_for("auto", train, on_gpu=False, n_slots=8) == 4
    (told,) = caplog.messages
    assert told.startswith("training on 4 of the 8 workers there is room for: train.batch_size = 2,049 keeps 4 busy")
    assert workers_for("auto", TrainConfig(batch_size=1), on_gpu=False, n_slots=8) == 1


def test_on_gpus_a_useful_share_is_larger() -> None:
    train = TrainConfig(batch_size=2 * TrainConfig.useful_share_on_gpu)
    assert workers_for("auto", train, on_gpu=True, n_slots=64) == 2
    assert workers_for("auto", train, on_gpu=False, n_slots=64) > 2


def test_workers_asked_for_by_number_are_started_with_a_word_where_they_are_too_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "distspectral")
    config = AutoencoderConfig(batch_size=2 * AutoencoderConfig.useful_share)
    assert workers_for(2, config, on_gpu=False, n_slots=0) == 2
    assert workers_for(WorkerCount(max=2), config, on_gpu=False, n_slots=0) == 2
    assert caplog.messages == []
    assert workers_for(WorkerCount(max=3), config, on_gpu=False, n_slots=9) == 3
    assert workers_for(5, config, on_gpu=False, n_slots=9) == 5
    assert len(caplog.messages) == 2
    assert "autoencoder.batch_size = 512 keeps 2 busy" in caplog.messages[0]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
