"""Items that share a model or a GPU, through a pool of Ray Data actors: each loads once and takes item after item."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from distspectral import logs
from distspectral.config.ray import RayConfig
from distspectral.mapping import Mapper
from distspectral.orchestration.calls import call, with_traceback, worker_lost
from distspectral.orchestration.resources import Request, request

ACTORS_TO_GROW = 64
"""At most, on a cluster that has room for fewer: an autoscaler starts nodes for actors that wait."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an item; an object of ours, for Arrow would make a list of a tuple."""

    result: Any = None
    error: Exception | None = None


class ItemActor:
    """Calls the stage's function on one item at a time.

    Args:
        function: of one item; keeps what is costly to load in the process.
        items: all items; a row of the dataset is an index into them.
        resources: that the actor was given.
        work: what it does, for the log.
        log_context: what its log is to say.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        resources: Request,
        work: str,
        log_context: dict[str, Any] | None,
    ) -> None:
        self.function, self.items, self.resources = function, items, resources
        self.work, self.log_context = work, log_context

    def __call__(self, row: dict[str, Any]) -> dict[str, Outcome]:
        """Return what became of the item with index ``row["item"]``, its error too: Ray Data wraps what is raised."""
        try:
            result = call(
                self.function,
                self.items[row["item"]],
                self.resources.n_threads,
                self.resources.num_gpus > 0,
                self.work,
                self.log_context,
                "actor",
            )
        except Exception as error:
            return {"outcome": Outcome(error=with_traceback(error))}
        return {"outcome": Outcome(result)}


@contextlib.contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without progress bars and messages: whoever called the mapper shows progress."""
    context = DataContext.get_current()
    before = context.enable_progress_bars, context.enable_fallback_to_arrow_object_ext_type
    # asked for, so that workers do not warn of it: what an item returns is no Arrow value
    context.enable_progress_bars, context.enable_fallback_to_arrow_object_ext_type = False, True
    try:
        with logs.level("ray.data", logging.ERROR):
            yield
    finally:
        context.enable_progress_bars, context.enable_fallback_to_arrow_object_ext_type = before


def actor_mapper(config: RayConfig, stage: str = "embed") -> Mapper:
    """Return a mapper over an autoscaling pool of actors on the connected cluster; an item is a shard, not a row.

    The dataset holds one number per item, so nothing of the data passes through Ray: an actor reads its shard,
    writes its output and returns the receipt. An item whose actor or node is lost runs again, up to
    ``config.task_retries`` times. An exception that the function raises is not retried: it reaches the caller as it
    was raised.

    Raises:
        WorkerLostError: an item's actor was lost more often than ``config.task_retries``.
    """

    def map_items(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        if not items:
            return
        resources = request(config, stage, on_gpu=on_gpu)
        least, most, first = pool_bounds(config, len(items), resources.slots(ray.cluster_resources()))
        with quiet_data():
            # not `range`, whose reads would wait for a CPU while actors hold all of them
            numbers = ray.data.from_items(list(range(len(items))), override_num_blocks=len(items))
            with warnings.catch_warnings():
                # Ray 2.60 has no other way to bound retries, and would retry an item that kills its actor for ever
                warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated", RayDeprecationWarning)
                dataset = numbers.map(
                    ItemActor,
                    fn_constructor_args=(function, list(items), resources, description, logs.context()),
                    compute=ActorPoolStrategy(min_size=least, max_size=most, initial_size=first),
                    max_task_retries=config.task_retries,
                    **resources.options,
                )
            try:
                for row in dataset.iter_rows():
                    outcome: Outcome = row["outcome"]
                    if outcome.error is not None:
                        raise outcome.error
                    yield outcome.result
            except RayError as error:
                raise worker_lost(description, config.task_retries, error) from error

    return map_items


def pool_bounds(config: RayConfig, n_items: int, n_slots: int) -> tuple[int, int, int]:
    """Return how many actors are kept at least, at most, and started at once.

    Args:
        config: the YAML section ``ray``.
        n_items: more actors than items would have nothing to do.
        n_slots: actors that the cluster has room for at this moment.
    """
    most = max(n_slots, ACTORS_TO_GROW) if config.actors.max is None else config.actors.max
    most = max(1, min(most, n_items))
    least = min(config.actors.min, most)
    return least, most, max(least, min(most, n_slots))
