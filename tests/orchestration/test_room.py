from __future__ import annotations

from typing import Any

import pytest

from distspectral.config.ray import RayConfig
from distspectral.errors import ConfigError
from distspectral.orchestration.resources import request
from distspectral.orchestration.room import refusal, require_room, room


def node(alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Labels": labels or {}, "Resources": resources}


def units(nodes: list[dict[str, Any]], **ray: Any) -> int:
    return room(request(RayConfig(**ray), "train", on_gpu=True, nodes=nodes), nodes)


def test_a_unit_fits_on_one_node_and_never_across_two() -> None:
    nodes = [node(CPU=3.0), node(CPU=3.0), node(alive=False, CPU=64.0)]
    assert units(nodes) == 6
    assert units(nodes, cpus_per_worker=2) == 2
    assert units(nodes, cpus_per_worker=4) == 0
    assert units(nodes, resources={"train": {"memory": 1}}) == 0
    assert units(nodes, resources={"train": {"num_cpus": 0.1}}) == 60


def test_nodes_without_the_labels_have_no_room() -> None:
    nodes = [node(CPU=1.0, labels={"zone": "a"}), node(CPU=1.0)]
    assert units(nodes, resources={"train": {"labels": {"zone": "a"}}}) == 1
    assert units(nodes, resources={"train": {"labels": {"zone": "!a"}}}) == 2, "Ray judges conditions"


@pytest.mark.parametrize(
    ("ray", "stage", "n_units", "said"),
    [
        (
            {"workers": 8},
            "train",
            8,
            "ray.workers: train asks for 8 workers of 1 CPU each, and the cluster has room for 2 (there are 2 CPUs on "
            "1 node)",
        ),
        (
            {"actors": {"min": 8}},
            "embed",
            8,
            "ray.actors.min: embed asks for 8 actors of 1 CPU each, and the cluster has room for 2 (there are 2 CPUs "
            "on 1 node)",
        ),
        ({"cpus_per_worker": 3}, "train", 1, "ray.cpus_per_worker: train asks for 3 CPUs, and no node has them"),
        ({"cpus_per_task": 3}, "pack", 1, "ray.cpus_per_task: pack asks for 3 CPUs, and no node has them"),
        ({"use_gpu": True}, "train", 1, "ray.use_gpu: train asks for 1 CPU and 1 GPU, and no node has them"),
        (
            {"resources": {"train": {"memory": "3GiB"}}},
            "train",
            1,
            "ray.resources.train: train asks for 1 CPU and 3.0 GiB of memory, and no node has them (there are 2 CPUs, "
            "1.0 GiB of memory on 1 node)",
        ),
    ],
)
def test_a_refusal_names_both_numbers_and_the_key(ray: dict[str, Any], stage: str, n_units: int, said: str) -> None:
    nodes, config = [node(CPU=2.0, memory=float(2**30))], RayConfig(**ray)
    message, keys = refusal(config, stage, request(config, stage, on_gpu=True, nodes=nodes), n_units, nodes)
    assert message.startswith(said)
    assert all(key in message for key in keys)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_what_the_connected_cluster_will_never_have_is_refused_before_anything_runs() -> None:
    require_room(RayConfig(workers=2), ["pack", "train", "embed"])
    require_room(RayConfig(workers={"min": 2, "max": 8}, actors={"min": 2, "max": 8}), ["train", "embed"])
    require_room(RayConfig(workers=8), ["pack", "embed"])
    for asked, key in (
        ({"workers": 8}, "ray.workers"),
        ({"workers": {"min": 3, "max": 8}}, "ray.workers"),
        ({"actors": {"min": 8}}, "ray.actors.min"),
        ({"cpus_per_task": 3}, "ray.cpus_per_task"),
        ({"use_gpu": True}, "ray.use_gpu"),
        ({"resources": {"embed": {"memory": "900TiB"}}}, "ray.resources.embed"),
    ):
        with pytest.raises(ConfigError, match=rf"^{key}: ") as refused:
            require_room(RayConfig.model_validate(asked), ["pack", "train", "embed"])
        assert refused.value.parameters == (key,)
