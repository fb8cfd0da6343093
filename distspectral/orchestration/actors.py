"""Items that share a model, through a pool of Ray Data actors: each loads it once and takes shard after shard."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayTaskError
from threadpoolctl import threadpool_limits

from distspectral import logs
from distspectral.config.ray import RayConfig
from distspectral.errors import DistSpectralError
from distspectral.mapping import Mapper
from distspectral.orchestration.resources import request


class ItemActor:
    """Calls the stage's function on one item at a time.

    Args:
        function: of one item; keeps what is costly to load in the process.
        items: all items; a row of the dataset is an index into them.
        n_threads: threads of this actor.
        work: what it does, for the log.
        log_context: what its log is to say.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        n_threads: int,
        work: str,
        log_context: dict[str, Any] | None,
    ) -> None:
        self.function, self.items, self.n_threads, self.work = function, items, n_threads, work
        logs.adopt_context(log_context, "actor")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the result for the item with index ``row["id"]``, or the error of ours that it met.

        An error of ours would come again on a retry, so it is returned: Ray retries what is raised.
        """
        with threadpool_limits(self.n_threads):
            try:
                with logs.timed("item", work=self.work):
                    return {"result": self.function(self.items[row["id"]])}
            except DistSpectralError as error:
                return {"result": error}


@contextlib.contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without progress bars and messages: whoever called the mapper shows progress."""
    context = DataContext.get_current()
    before, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        with logs.level("ray.data", logging.ERROR):
            yield
    finally:
        context.enable_progress_bars = before


def actor_mapper(config: RayConfig, stage: str = "embed") -> Mapper:
    """Return a mapper over an autoscaling pool of actors on the connected cluster; an item is a shard, not a row.

    The dataset holds one number per shard, so nothing of the data passes through Ray: an actor reads its shard,
    writes its output and returns the receipt.
    """

    def map_items(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        if not items:
            return
        pool = ActorPoolStrategy(
            min_size=config.actors.min, max_size=max(config.actors.min, min(config.actors.max, len(items)))
        )
        resources = request(config, stage)
        with quiet_data():
            dataset = ray.data.range(len(items), override_num_blocks=len(items)).map(
                ItemActor,
                fn_constructor_args=(function, list(items), resources.n_threads, description, logs.context()),
                compute=pool,
                **resources.options,
            )
            try:
                for row in dataset.iter_rows():
                    if isinstance(row["result"], DistSpectralError):
                        raise row["result"]
                    yield row["result"]
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None

    return map_items
