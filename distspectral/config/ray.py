"""Where a run gets its hands: one process, a Ray of its own, or a running cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import (
    ByteSize,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from distspectral.frozen import FrozenModel
from distspectral.stages import NAMES


class Bounds(FrozenModel):
    """The fewest and the most of something."""

    min: PositiveInt
    max: PositiveInt | None

    @model_validator(mode="after")
    def _min_is_below_max(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class ActorCount(Bounds):
    """Bounds of an autoscaling pool of actors (YAML ``ray.actors``)."""

    min: PositiveInt = Field(1, description="actors kept from the start")
    max: PositiveInt | None = Field(
        None, description="actors at most; null = as many as there is room for, on a cluster that grows up to 64"
    )


class WorkerCount(Bounds):
    """Bounds of an elastic group of training workers (YAML ``ray.workers``)."""

    min: PositiveInt = Field(1, description="workers that training waits for; it goes on while so many are left")
    max: PositiveInt = Field(description="workers at most")
    check_s: PositiveFloat = Field(
        60.0, description="seconds between looks for room; growing costs the steps since the last checkpoint"
    )


class StageResources(FrozenModel):
    """What each task, actor or training worker of one stage asks of Ray (YAML ``ray.resources.STAGE``)."""

    num_cpus: PositiveFloat | None = Field(
        None,
        description="CPUs, and threads, beside num_gpus of those parts that get a GPU; null = ray.cpus_per_worker in "
        "training, else ray.cpus_per_task; with a GPU at least as many as its node has for each, up to 16",
    )
    num_gpus: NonNegativeFloat | None = Field(
        None,
        description="GPUs, or a share of one, for parts of the stage that are faster on one; null = by ray.use_gpu",
    )
    memory: ByteSize | None = Field(None, description="memory that the node must have free, such as 8GiB; null = any")
    labels: Mapping[str, str] = Field({}, description="labels that the node must carry (Ray's label selector)")


class RayConfig(FrozenModel):
    """What the run asks of Ray (YAML section ``ray``).

    Nothing here changes what is computed; ``workers`` decides in which order sums are rounded.
    """

    enabled: bool = Field(
        True,
        description="false = everything in this process; so it is anyway while rows hold at most 4,194,304 numbers in "
        "all and this section asks for nothing",
    )
    address: str | None = Field(
        None,
        description="null = a local Ray for this run (inside `ray job submit`, the job's cluster); "
        "auto = the cluster running on this machine; else host:port or ray://host:port",
    )
    workers: PositiveInt | WorkerCount | Literal["auto"] = Field(
        "auto",
        description="training workers; auto = as many as shorten a step and there is room for, or none where a local "
        "Ray would take longer to start them than they save; {min: 1, max: 4} = as many as there is room for, fewer "
        "when a node is lost, more when one comes. A step's batch stays train.batch_size, divided among those there "
        "are",
    )
    use_gpu: bool | Literal["auto"] = Field(
        "auto",
        description="one GPU per training worker, and per unit of other work that is faster on one; auto = where the "
        "cluster has that many",
    )
    cpus_per_worker: PositiveInt = Field(1, description="CPUs, and threads, of each training worker")
    cpus_per_task: PositiveInt = Field(1, description="CPUs, and threads, of each task and actor")
    task_retries: NonNegativeInt = Field(3, description="reruns of a task whose worker or node was lost")
    resources: Mapping[str, StageResources] = Field(
        {},
        description="by stage, where it asks for something else; an autoscaler starts nodes for what a stage asks "
        "while it runs, so GPUs named here cost only then",
    )
    actors: ActorCount = Field(
        ActorCount(), description="pool that sends rows through networks; by default tasks do where no GPU is asked for"
    )

    @field_validator("resources")
    @classmethod
    def _are_of_stages(cls, resources: Mapping[str, StageResources]) -> Mapping[str, StageResources]:
        if unknown := [name for name in resources if name not in NAMES]:
            raise ValueError(f"{unknown[0]} is no stage; there are {', '.join(NAMES)}")
        return resources

    @property
    def min_workers(self) -> int:
        """Training workers at least."""
        if isinstance(self.workers, WorkerCount):
            return self.workers.min
        return 1 if self.workers == "auto" else self.workers

    @property
    def max_workers(self) -> int | None:
        """Training workers at most; None = as many as are useful."""
        if isinstance(self.workers, WorkerCount):
            return self.workers.max
        return None if self.workers == "auto" else self.workers


class MlflowConfig(FrozenModel):
    """Where MLflow keeps a run (YAML section ``mlflow``; none is told without it). Nothing here changes a result."""

    tracking_uri: str | None = Field(None, description="of the server; null = MLFLOW_TRACKING_URI")
    experiment: str = Field("distspectral", description="made where there is none of the name")
