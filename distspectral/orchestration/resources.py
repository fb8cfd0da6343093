"""What a unit of a stage's work asks of Ray, so that an autoscaler starts nodes that fit it; how many workers train."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ray

from distspectral.config.ray import RayConfig, StageResources, WorkerCount
from distspectral.stages import stage_named
from distspectral.training.config import TrainConfig

MOST_CPUS_PER_GPU = 16
"""That one process makes use of to feed an accelerator."""

logger = logging.getLogger(__name__)

Nodes = Sequence[Mapping[str, Any]]
"""As ``ray.nodes()`` tells of them."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Resources of one unit of a stage's work.

    Attributes:
        num_cpus: may be a share of one.
        num_gpus: may be a share of one; 0 for none.
        memory: bytes, None for any.
        labels: that the node must carry.
    """

    num_cpus: float
    num_gpus: float
    memory: int | None
    labels: dict[str, str]

    @property
    def n_threads(self) -> int:
        """Threads of its process."""
        return max(1, int(self.num_cpus))

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``ray.remote`` and of Ray Data's ``map``."""
        options: dict[str, Any] = {"num_cpus": self.num_cpus}
        if self.num_gpus:
            options["num_gpus"] = self.num_gpus
        if self.memory is not None:
            options["memory"] = self.memory
        if self.labels:
            options["label_selector"] = self.labels
        return options

    @property
    def bundle(self) -> dict[str, float]:
        """The same as Ray Train's ``resources_per_worker``."""
        bundle: dict[str, float] = {"CPU": self.num_cpus}
        if self.num_gpus:
            bundle["GPU"] = self.num_gpus
        if self.memory is not None:
            bundle["memory"] = self.memory
        return bundle

    def slots(self, total: dict[str, float]) -> int:
        """Return how many fit into a cluster's resources at once, nodes' borders aside."""
        return min(int(total.get(name, 0) // amount) for name, amount in self.bundle.items())


def request(config: RayConfig, stage: str, *, on_gpu: bool = False, nodes: Nodes | None = None) -> Request:
    """Return what a unit of the stage's work asks for.

    Where it gets a GPU and nothing is said of its CPUs, it gets those of the node that belong to the GPU, to read and
    decode for it. CPUs that are asked for beside GPUs are those of the parts that get a GPU.

    Args:
        config: the YAML section ``ray``.
        stage: by its name.
        on_gpu: whether this part of the stage is faster on an accelerator; the others get none.
        nodes: of the cluster; None = those of the connected one at this moment.
    """
    asked = config.resources.get(stage, StageResources())
    trains = stage_named(stage).trains
    num_gpus = 0.0
    if on_gpu:
        granted = 1.0 if wants_gpus(config, config.min_workers if trains else 1, nodes) else 0.0
        num_gpus = granted if asked.num_gpus is None else asked.num_gpus
    num_cpus: float = config.cpus_per_worker if trains else config.cpus_per_task
    if num_gpus:
        num_cpus = max(num_cpus, int(num_gpus * cpus_per_gpu(ray.nodes() if nodes is None else nodes)))
    if asked.num_cpus is not None and (on_gpu or not asked.num_gpus):
        num_cpus = asked.num_cpus
    return Request(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        memory=None if asked.memory is None else int(asked.memory),
        labels=dict(asked.labels),
    )


def wants_gpus(config: RayConfig, n_units: int, nodes: Nodes | None = None) -> bool:
    """Whether each of so many units of work gets a GPU; ``auto`` asks the nodes, of the connected cluster if None."""
    if config.use_gpu == "auto":
        return sum(amount for _, amount in _shares(ray.nodes() if nodes is None else nodes)) >= n_units
    return config.use_gpu


def cpus_per_gpu(nodes: Nodes) -> int:
    """Return the CPUs that a node has for each of its GPUs, by the node that has fewest; 1 where none has GPUs."""
    shares = [int(cpus // gpus) for cpus, gpus in _shares(nodes)]
    return max(1, min([*shares, MOST_CPUS_PER_GPU])) if shares else 1


def workers_for(asked: int | WorkerCount | Literal["auto"], train: TrainConfig, on_gpu: bool, n_slots: int) -> int:
    """Return how many workers train, at most; say so where they are fewer, or more, than is of use.

    Args:
        asked: ``ray.workers``; numbers are obeyed.
        train: of the objective; tells how many workers shorten a step.
        on_gpu: whether each has an accelerator.
        n_slots: workers that the cluster has room for at this moment.
    """
    useful, key = train.useful_workers(on_gpu), f"{train.section}.batch_size"
    words = f"{key} = {train.batch_size:,} keeps {useful} busy; a larger batch would keep more"
    if asked == "auto":
        if n_slots > useful:
            logger.info("training on %d of the %d workers there is room for: %s", useful, n_slots, words)
        return max(1, min(useful, n_slots))
    most = asked.max if isinstance(asked, WorkerCount) else asked
    if most > useful:
        logger.warning("training on up to %d workers, as ray.workers says, but %s", most, words)
    return most


def _shares(nodes: Nodes) -> list[tuple[float, float]]:
    """Return CPUs and GPUs of each node that has GPUs."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    return [(one.get("CPU", 0.0), one["GPU"]) for one in resources if one.get("GPU")]
