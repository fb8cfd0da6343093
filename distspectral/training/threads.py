"""As many threads as shorten a step: most steps are too short to share, and hyperthreads share one core's products."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

LEAST_GAIN = 1.2
"""Times as fast, below which twice the threads are not taken.

Two hyperthreads of one core took 1.3, 1.3 and 1.05 times as long as one thread for a pass of the default autoencoder,
Siamese network and eigenfunctions on MNIST. So the choice is the same whatever else the machine does."""
TRIES = 5


@contextlib.contextmanager
def useful_threads(run: Callable[[], None]) -> Iterator[int]:
    """Let torch use as many threads on the CPU, of those it has, as shorten ``run``, until the context is left.

    Args:
        run: what is timed: a step's products, without consequences.

    Yields:
        The number of threads, 2^i.
    """
    most, n_threads = torch.get_num_threads(), 1
    try:
        if most > 1:
            seconds = _seconds(run, n_threads)
            while 2 * n_threads <= most and (faster := _seconds(run, 2 * n_threads)) * LEAST_GAIN < seconds:
                n_threads, seconds = 2 * n_threads, faster
            torch.set_num_threads(n_threads)
        yield n_threads
    finally:
        torch.set_num_threads(most)


def _seconds(run: Callable[[], None], n_threads: int) -> float:
    """Return the seconds that ``run`` takes, the best of several; the first is not counted."""
    torch.set_num_threads(n_threads)
    seconds = []
    for _ in range(1 + TRIES):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
