"""What runs in a worker for each item of a task, in a module that loads nothing which the item does not need."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_limits

from distspectral import logs
from distspectral.devices import hidden_gpus
from distspectral.errors import DistSpectralError, WorkerLostError, first_line


def call(
    function: Callable[[Any], Any],
    item: Any,
    n_threads: int,
    has_gpu: bool,
    work: str,
    log_context: dict[str, Any] | None,
    role: str = "task",
) -> Any:
    """Run one item in a worker; Ray set OMP_NUM_THREADS for libraries loaded later, this is for those loaded."""
    logs.adopt_context(log_context, role)
    gpus = contextlib.nullcontext() if has_gpu else hidden_gpus()
    with threadpool_limits(n_threads), gpus, logs.timed("item", work=work):
        return function(item)


def with_traceback(error: Exception) -> Exception:
    """Return the error that is being handled, with its traceback as a note, which survives pickling."""
    if not isinstance(error, DistSpectralError):  # ours say enough
        error.add_note(traceback.format_exc())
    return error


def worker_lost(work: str, retries: int, error: Exception) -> WorkerLostError:
    """Return the error of an item whose worker was lost too often, by Ray's."""
    return WorkerLostError(
        f"{work}: an item's worker was lost {retries + 1} times ({first_line(error)}); often it ran out of memory: "
        "raise ray.cpus_per_task, so that fewer run at once, or ray.task_retries on machines that come and go",
        ["ray.cpus_per_task", "ray.task_retries"],
    )
