"""How a stage hands out independent items of work: one call signature, here for one process.

``distspectral.orchestration`` has the form that runs the same calls as Ray tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


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


def in_order(
    mapper: Mapper, function: Callable[[T], R], items: Sequence[T], description: str, *, on_gpu: bool = False
) -> Iterator[R]:
    """Yield a mapper's results in the order of the items, each as soon as all before it are there.

    Args:
        mapper: calls the function.
        function: of one item, as for a :class:`Mapper`.
        items: likewise.
        description: likewise.
        on_gpu: likewise.
    """
    numbered = [(_name(item, number), number, item) for number, item in enumerate(items)]
    waiting: dict[int, R] = {}
    due = 0
    for number, result in mapper(functools.partial(_numbered, function), numbered, description, on_gpu=on_gpu):
        waiting[number] = result
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def _name(item: Any, number: int) -> str | int:
    """Return the shard's name or the first row that an item begins with; without one, its number."""
    first = item[0] if isinstance(item, tuple) else item
    return first if isinstance(first, str | int) else number


def _numbered(function: Callable[[T], R], item: tuple[str | int, int, T]) -> tuple[int, R]:
    _, number, own = item
    return number, function(own)
