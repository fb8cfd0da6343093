"""Several ranks as processes of this machine, and one global batch cut unevenly among them."""

from __future__ import annotations

import datetime
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from distspectral.objectives.batches import EdgeBatch

TIMEOUT = datetime.timedelta(seconds=60)
PRELOAD = ["distspectral.recipes", "distspectral.graph.knn", "tests.datasets"]
"""Imported once, by the process that all ranks are forked from: imports take a rank longer than what it is asked."""


DEVICE_ALONE = "cuda:gloo"
"""A group that refuses tensors of the host, as one of NCCL alone does (torch.distributed, "Backends"): the same
RuntimeError "No backend type associated with device type cpu", by the same dispatcher."""


def run_ranks(
    function: Callable[..., Any], world_size: int, folder: Path, *args: Any, backend: str = "gloo"
) -> list[Any]:
    """Call ``function(*args)``, of module level, on every rank of a group; return the results by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.set_forkserver_preload(PRELOAD)
    mp.start_processes(_rank, (world_size, str(folder), backend, function, args), world_size, start_method="forkserver")
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(world_size)]


def by_ranks(function: Callable[..., Any], *inputs: Callable[[], Any]) -> tuple[Any, Any]:
    """Return the fixtures ``alone`` and ``together`` of a module.

    Args:
        function: of module level; its results are compared.
        inputs: make its arguments, once for each fixture, in the process of the tests.

    Returns:
        What the function gives in one process, and its results by rank of two and of three.
    """

    @pytest.fixture(scope="module")
    def alone() -> Any:
        return function(*(make() for make in inputs))

    @pytest.fixture(scope="module", params=[2, 3])
    def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
        arguments = [make() for make in inputs]
        return run_ranks(function, request.param, tmp_path_factory.mktemp("ranks"), *arguments)

    return alone, together


def _rank(
    rank: int, world_size: int, folder: str, backend: str, function: Callable[..., Any], args: Sequence[Any]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        backend, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size, timeout=TIMEOUT
    )
    try:
        torch.save(function(*args), f"{folder}/result-{rank}.pt")
        if backend != DEVICE_ALONE:
            dist.barrier()
    finally:
        dist.destroy_process_group()


def share_of_batch(batch: EdgeBatch, shares: Sequence[float], rank: int) -> EdgeBatch:
    """Return the consecutive edges that ``rank`` gets of a random-walk batch, with only the rows they touch.

    Args:
        batch: of all ranks together.
        shares: of the edges, one per rank, adding up to 1.
        rank: whose.
    """
    cuts = [round(sum(shares[:r]) * len(batch.heads)) for r in range(len(shares) + 1)]
    own = slice(cuts[rank], cuts[rank + 1])
    ends, weights = torch.cat([batch.heads[own], batch.tails[own]]), batch.weights[own]
    rows, inverse = torch.unique(ends, return_inverse=True)
    mass = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, inverse, weights.repeat(2) / 2)
    n = len(weights)
    return EdgeBatch(batch.vectors[rows], inverse[:n], inverse[n:], weights, mass)
