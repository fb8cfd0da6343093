"""What one task, actor or training worker of a stage asks of Ray, so that an autoscaler starts nodes that fit it."""

from __future__ import annotations

import dataclasses
from typing import Any

from distspectral.config.ray import RayConfig, StageResources
from distspectral.stages import STAGES

GPU_BY_DEFAULT = frozenset({"training", "actors"})
"""Workers that take a GPU without being told to, where ``ray.use_gpu`` grants one."""


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


def request(config: RayConfig, stage: str) -> Request:
    """Return what a unit of the stage, by its name, asks for.

    With ``ray.use_gpu: auto`` and nothing said of the stage's GPUs, the connected cluster of this moment decides.
    """
    asked = config.resources.get(stage, StageResources())
    workers = next(stages[stage].workers for stages in STAGES.values() if stage in stages)
    default_cpus = config.cpus_per_worker if workers == "training" else config.cpus_per_task
    num_gpus = asked.num_gpus
    if num_gpus is None:
        num_gpus = float(workers in GPU_BY_DEFAULT and _gpus_granted(config))
    return Request(
        num_cpus=asked.num_cpus or default_cpus,
        num_gpus=num_gpus,
        memory=None if asked.memory is None else int(asked.memory),
        labels=dict(asked.labels),
    )


def _gpus_granted(config: RayConfig) -> bool:
    from distspectral.orchestration.connection import wants_gpus

    return wants_gpus(config)
