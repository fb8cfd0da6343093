"""Items as Ray tasks: a bounded number in flight, lost workers retried, the user's errors as they were raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from distspectral import logs
from distspectral.config.ray import RayConfig
from distspectral.mapping import Mapper
from distspectral.orchestration.calls import call, worker_lost
from distspectral.orchestration.resources import Request, request

IN_FLIGHT_PER_SLOT = 2
"""One running and one waiting, so that no CPU idles between two tasks."""

LEAST_WAITING = 16
"""Beside those that run; an autoscaler starts nodes for tasks that wait, so a cluster grows by so many at a time, and
later by as much as it has."""


def task_mapper(config: RayConfig, stage: str = "pack") -> Mapper:
    """Return a mapper that runs each item as one Ray task on the connected cluster, with the stage's resources.

    For work on CPUs: a process that has touched one GPU goes on with it when Ray gives its next task another one, so
    work on GPUs belongs into :func:`distspectral.orchestration.actors.actor_mapper`.

    A task whose worker or node is lost runs again, up to ``config.task_retries`` times, so functions must bear
    being run twice on an item. An exception that the function raises is not retried: it reaches the caller as it
    was raised. When the caller stops early, tasks not yet begun are cancelled.

    Raises:
        WorkerLostError: an item's worker was lost more often than ``config.task_retries``.
    """

    def map_tasks(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        resources = request(config, stage, on_gpu=on_gpu)
        task = ray.remote(call).options(
            name=description, max_retries=config.task_retries, retry_exceptions=False, **resources.options
        )
        shared, log_context = ray.put(function), logs.context()
        upcoming = iter(items)
        running: list[Any] = []
        try:
            while True:
                for _ in range(_limit(resources) - len(running)):
                    try:
                        item = next(upcoming)
                    except StopIteration:
                        break
                    running.append(
                        task.remote(shared, item, resources.n_threads, resources.num_gpus > 0, description, log_context)
                    )
                if not running:
                    return
                (finished,), running = ray.wait(running, num_returns=1)
                yield _result(finished, description, config)
        finally:
            for reference in running:
                ray.cancel(reference, force=False)

    return map_tasks


def _limit(resources: Request) -> int:
    """Return how many tasks to hand out at once, by the cluster's size of this moment."""
    slots = resources.slots(ray.cluster_resources())
    return max(IN_FLIGHT_PER_SLOT * slots, slots + LEAST_WAITING)


def _result(reference: Any, description: str, config: RayConfig) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise cause from None
    except RayError as error:
        raise worker_lost(description, config.task_retries, error) from error
