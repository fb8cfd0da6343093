"""What a training costs: its budget of steps, whatever the rows, as long as these fit into memory.

Shape letters: N rows, B items of a batch: edges, pairs or rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from distspectral.costs.bill import CACHE_SHARE, GPU_SHARE, GPU_STEP_S, MISS_S, NVLINK, REDUCE_S, WITHIN_NODE, Bill
from distspectral.training.config import TrainConfig
from distspectral.training.draws import are_drawn, bytes_drawn

SCAN = "scan"
"""What a stage calls, among its pieces, the pass over a graph from which edges are drawn."""


def operations(layers: Sequence[int], train: TrainConfig, n_rows: int) -> float:
    """Return the additions and multiplications of a training at most, whose items pass the network twice.

    Both ends of an edge do, or a row and then the mirrored network.

    Args:
        layers: widths of the network, its input first.
        train: its budget.
        n_rows: N, on which that may depend.
    """
    n_weights = sum(a * b for a, b in itertools.pairwise(layers))
    return 2.0 * 6 * n_weights * train.batch_size * train.steps(n_rows)


def _drawn(bill: Bill) -> float:
    """Return the bytes of batches that are drawn before a training, with the time that takes; 0 where none are."""
    (seen, graph), settings = bill.recipe.learns_from[bill.stage], bill.settings[bill.stage]
    draws = settings.draws(round(bill.n_rows))
    if draws is None:
        return 0.0
    n_bytes = bytes_drawn(draws, 4.0 * bill.recipe.layers[bill.stage][0])
    if not are_drawn(settings.train.batches, n_bytes, bill.kept_by(*seen, *([] if graph is None else [graph]))):
        return 0.0
    n_reads, cores = draws.n_batches * draws.n_records * len(seen), bill.machines.cores
    weigh = 2 * bill.us(SCAN) * bill.n_rows / 1e6
    words = f"{n_reads:,} rows x {MISS_S * 1e6:g} us + {weigh:.3g} s of edges / {cores:,.0f} cores"
    bill.add("draw", (n_reads * MISS_S + weigh) / cores, words)
    return n_bytes


def training(bill: Bill, mirrored: bool = False) -> None:
    """Fill in a training by the settings of the stage's name; an edge or a pair of a graph gathers two rows.

    Args:
        bill: of the stage.
        mirrored: whether the network is followed by its mirror image, as an encoder by its decoder.
    """
    machines, layers = bill.machines, bill.recipe.layers[bill.stage]
    seen, graph = bill.recipe.learns_from[bill.stage]
    train, networks = bill.settings[bill.stage].train, 2 if mirrored else 1
    useful = math.inf if machines.all_train else train.useful_workers(machines.gpu is not None)
    workers = int(min(machines.workers, useful))
    n_weights, ends = networks * bill.n_weights(bill.stage), 1 if graph is None else 2
    share, n_steps = train.batch_size / workers, train.steps(bill.n_rows)
    if machines.gpu is None:
        step = bill.rates.steps[bill.stage].seconds(share)
        words = f"{share:,.0f} of {train.batch_size:,} a worker"
    else:
        sums = 6 * n_weights * ends * share / (GPU_SHARE * machines.gpu.flops)
        step, words = GPU_STEP_S + sums, f"{GPU_STEP_S * 1e3:g} ms and {sums * 1e3:.2g} ms of arithmetic"
    bill.maps = []  # a training reads as it goes
    batches = _drawn(bill)
    misses = 0.0 if batches else 1 - CACHE_SHARE * machines.node.memory_bytes / max(bill.kept_by(*seen), 1.0)
    if (gather := misses * share * ends * len(seen) * MISS_S) > step:
        step, words = gather, f"{misses:.0%} of the rows are not in memory, {MISS_S * 1e6:g} us each"
    gradient = 4.0 * n_weights
    if workers > 1:
        rate = machines.node.network if machines.nodes > 1 else WITHIN_NODE if machines.gpu is None else NVLINK
        reduce = REDUCE_S + 2 * gradient / rate
        step, words = step + reduce, f"{words}, {reduce * 1e3:.2g} ms of all-reduce"
        bill.sent = n_steps * 2.0 * gradient * (workers - 1)
    bill.add("steps", n_steps * step, f"{n_steps:,} steps x {step * 1e3:.3g} ms ({words})")
    if n_items := bill.settings[bill.stage].n_finishing(round(bill.n_rows)):
        words = f"{n_items:,} {'edges' if ends == 2 else 'rows'} forward, a third of a step for {train.batch_size:,}"
        bill.add("finish", n_items / train.batch_size * step / 3, words)
    scan = bill.us(SCAN)
    if scan and not batches:
        bill.add("scan", bill.n_rows * scan / workers / 1e6, f"N x {scan:.3g} us / {workers} workers")
        bill.worker_bytes += 8 * bill.n_rows / workers
    bill.read = 4.0 * n_steps * train.batch_size * ends * layers[0]
    if batches:
        bill.read, bill.written, bill.scratch = bill.read + 2 * batches, 2 * batches, 2 * batches
    activations = 12 * share * ends * (networks * sum(layers[1:-1]) + 2 * layers[0])
    bill.worker_bytes += 20.0 * n_weights + activations
