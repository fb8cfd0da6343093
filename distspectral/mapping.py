"""How a stage hands out independent items of work: one call signature, here for one process.

``distspectral.orchestration`` has the form that runs the same calls as Ray tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol


class Mapper(Protocol):
    """Calls ``function`` on every item and yields results in completion order.

    ``function`` and the items must be picklable (module-level functions and ``functools.partial`` of them).
    The first exception that a retry cannot cure is raised to the caller as it was raised in the task.
    """

    def __call__(
        self, function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        """Yield the results.

        Args:
            function: of one item.
            items: of any number.
            description: names the work for people (packing, embedding).
            on_gpu: whether the work is faster on an accelerator, so that each item gets one where they are granted;
                other items see none.
        """


def local_map(
    function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
) -> Iterator[Any]:
    """Call ``function`` on the items one after the other in this process."""
    del description, on_gpu
    for item in items:
        yield function(item)
