from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster_configs.rules import CONFIGS

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
clouds = pytest.mark.parametrize("cloud", ["aws", "gcp"])


def read(cloud: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CONFIGS / f"{cloud}.yaml").read_text())
    return config


@clouds
def test_ray_up_takes_the_file(cloud: str) -> None:
    config = read(cloud)
    jsonschema.validate(config, SCHEMA)
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "cpu", "gpu"}
    assert sum(node["max_workers"] for node in prepared["available_node_types"].values()) == config["max_workers"]


@clouds
def test_a_misspelt_key_is_refused(cloud: str) -> None:
    config = read(cloud)
    config["available_node_typs"] = config.pop("available_node_types")
    with pytest.raises(jsonschema.ValidationError, match="available_node_typs"):
        jsonschema.validate(config, SCHEMA)


@clouds
def test_no_port_but_ssh_is_open_and_ray_asks_for_a_token(cloud: str) -> None:
    config = read(cloud)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "security_group" not in config["provider"], "Ray's own opens port 22 alone"


@clouds
def test_the_head_works_for_nobody_and_workers_are_spot_nodes_that_may_all_leave(cloud: str) -> None:
    types = read(cloud)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    for name in ("cpu", "gpu"):
        assert types[name]["min_workers"] == 0
        assert "spot" in json.dumps(types[name]["node_config"]).lower()
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["gpu"]["docker"]["worker_image"].rpartition("/")[2].startswith("distspectral-gpu:")


def test_the_token_that_the_nodes_get_is_the_one_that_rays_command_makes(tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "ray", "get-auth-token", "--generate"]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=True)
    (mounted,) = read("aws")["file_mounts"].values()
    assert done.stdout == (tmp_path / mounted.removeprefix("~/")).read_text() != ""
