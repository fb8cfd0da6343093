"""Whether a cluster has room for what a stage asks, or may come to have it: known at once, not by waiting for ever."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get

from distspectral.config.ray import RayConfig
from distspectral.errors import ConfigError
from distspectral.orchestration.resources import Nodes, Request, request
from distspectral.stages import stage_named

logger = logging.getLogger(__name__)

NOT_ASKED_FOR = 1e-9
"""Ray counts in ten-thousandths; what is smaller is rounding."""


def require_room(config: RayConfig, stages: Sequence[str]) -> None:
    """Refuse stages that ask the connected cluster for what it does not have, if nothing would start more nodes.

    Of parts of a stage that might run on a GPU, :func:`require_unit` is asked when they come.

    Args:
        config: the YAML section ``ray``.
        stages: by name, those that have work.

    Raises:
        ConfigError: there is no room, and there will be none.
    """
    for stage in stages:
        workers = stage_named(stage).workers
        if workers == "training":
            _require(config, stage, request(config, stage, on_gpu=True), config.min_workers)
        elif workers == "actors":
            _require(config, stage, request(config, stage, on_gpu=True), config.actors.min)
        elif workers == "tasks":
            _require(config, stage, request(config, stage))


def require_unit(config: RayConfig, stage: str, asked: Request) -> None:
    """Refuse a unit of a stage's work in the same way."""
    _require(config, stage, asked)


def _require(config: RayConfig, stage: str, asked: Request, n_units: int = 1) -> None:
    nodes = ray.nodes()
    found = room(asked, nodes)
    if found >= n_units:
        return
    message, keys = refusal(config, stage, asked, n_units, nodes)
    if any(not node["Alive"] for node in nodes):
        logger.warning("%s; waiting, because nodes were lost that may come back", message)
    elif may_grow():
        logger.info("%s; waiting for the cluster's autoscaler", message)
    else:
        raise ConfigError(message, keys)


def room(asked: Request, nodes: Nodes) -> int:
    """Return how many units fit on the nodes at once, were they free; each unit fits on one node."""
    found = 0
    for node in nodes:
        if node["Alive"] and _carries(node.get("Labels") or {}, asked.labels):
            has = node["Resources"]
            found += min(
                (
                    math.floor(has.get(name, 0) / amount + NOT_ASKED_FOR)
                    for name, amount in asked.bundle.items()
                    if amount
                ),
                default=0,
            )
    return found


def _carries(labels: dict[str, str], selector: dict[str, str]) -> bool:
    """Whether a node carries the labels; of conditions that are no plain value Ray alone judges."""
    return all(
        labels.get(name) == wanted for name, wanted in selector.items() if wanted[:1] != "!" and "(" not in wanted
    )


def refusal(config: RayConfig, stage: str, asked: Request, n_units: int, nodes: Nodes) -> tuple[str, list[str]]:
    """Return what to say of units that do not fit, and the parameters that it names."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    unit = " and ".join(_words(name, amount) for name, amount in asked.bundle.items())
    where = f" on a node with labels {asked.labels}" if asked.labels else ""
    there = ", ".join(_words(name, sum(one.get(name, 0) for one in alive)) for name in asked.bundle)
    there = f"there are {there} on {len(alive)} node{'s' * (len(alive) != 1)}"
    fits = room(asked, nodes)
    if fits and n_units > 1:
        key, kind, remedy = (
            ("ray.workers", "workers", f"{fits} or auto")
            if stage_named(stage).trains
            else ("ray.actors.min", "actors", f"{fits}")
        )
        return (
            f"{key}: {stage} asks for {n_units} {kind} of {unit} each{where}, and the cluster has room for {fits} "
            f"({there}); set {key} to {remedy}, or join a larger cluster",
            [key],
        )
    key = _key(config, stage, asked, alive)
    return (
        f"{key}: {stage} asks for {unit}{where}, and no node has them ({there}); ask for less, or join a larger "
        "cluster",
        [key],
    )


def _words(name: str, amount: float) -> str:
    return f"{amount / 2**30:,.1f} GiB of memory" if name == "memory" else f"{amount:,.10g} {name}{'s' * (amount != 1)}"


def _key(config: RayConfig, stage: str, asked: Request, nodes: Sequence[dict[str, float]]) -> str:
    """Return the parameter that asks for what is not there."""
    if stage in config.resources:
        return f"ray.resources.{stage}"
    if asked.num_gpus > max((one.get("GPU", 0) for one in nodes), default=0):
        return "ray.use_gpu"
    return "ray.cpus_per_worker" if stage_named(stage).trains else "ray.cpus_per_task"


def may_grow() -> bool:
    """Whether an autoscaler watches the connected cluster; where that cannot be known, as by ``ray://``, it may.

    The older kind reports on any cluster; where it merely watches, each node is of a type of its own, named after it.
    The newer one numbers its own state.
    """
    if ray.util.client.ray.is_connected():
        return True
    report = json.loads(_internal_kv_get("__autoscaling_status") or "{}").get("autoscaler_report") or {}
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    types = report.get("node_type_mapping") or {}
    return any(kind != f"node_{node}" for node, kind in types.items()) or int(status.stats.autoscaler_version or 0) > 0
