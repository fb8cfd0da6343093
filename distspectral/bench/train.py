"""Training beside the bare network: how many of its steps a plain torch loop would do in the same time.

Shape letters: N rows, D features, B rows of a batch, K neighbours.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from distspectral.bench.ranks import on_ranks
from distspectral.datasets import Mixture
from distspectral.graph.store import ArrayGraph
from distspectral.models.networks import torch_device
from distspectral.objectives.batches import Batch
from distspectral.precision import (
    Factors,
    TrainPrecision,
    fast_bfloat16,
    multiplied_in,
    outputs_in,
    training_factors,
)
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.autoencoder import AutoencoderConfig, AutoencoderSettings
from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.memory import memory_kept
from distspectral.training.settings import TrainSettings
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings, StartConfig

N_NEIGHBORS = 15
N_COMPONENTS = 15
WARMUP_STEPS = 5
PRODUCT_SIZE, PRODUCTS = 2048, 5


def compare_training(n_rows: int, dim: int, steps: int, rounds: int, device: str) -> dict[str, Any]:
    """Return by precision and objective the steps per second of the trainer and of the bare network, and their ratio.

    Bare is forward and backward of the same network in the same precision on the same batches, drawn beforehand, with
    the outputs' mean square as loss: no sampling, no sums over edges, no optimiser. Both are timed in turns; medians
    count. Beside them is the rate of one product of two large matrices, and the share of it that the bare passes reach.

    Args:
        n_rows: N, generated.
        dim: D.
        steps: of each timing.
        rounds: timings of either.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    vectors, graph = ring(n_rows, dim)
    where = torch_device(device)
    precisions: tuple[TrainPrecision, ...] = ("float32", "bfloat16") if fast_bfloat16(where) else ("float32",)
    result: dict[str, Any] = {"rows": n_rows, "dim": dim, "threads": torch.get_num_threads()}
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        rate = 2.0 * PRODUCT_SIZE**3 / _product_seconds(where, dtype)
        result[precision] = {
            "product_gflops": rate / 1e9,
            "objectives": {
                name: _compare(vectors, graph, settings, rounds, rate)
                for name, settings in compared_settings(steps, device, precision).items()
            },
        }
    return result


def compare_ranks(n_rows: int, dim: int, steps: int, rounds: int, device: str, n_ranks: int) -> dict[str, Any]:
    """Return by objective the steps per second of several ranks and of one process with all threads, and their ratio.

    The batch of a step is the same, cut among the ranks, and so are the threads. Both take turns; medians count.

    Args:
        n_rows: N, generated.
        dim: D.
        steps: of each timing.
        rounds: timings of either.
        device: ``auto``, ``cpu`` or ``cuda``.
        n_ranks: processes, joined by gloo.
    """
    n_threads = max(1, torch.get_num_threads() // n_ranks)
    alone: dict[str, list[float]] = {name: [] for name in compared_settings(steps, device)}
    together: dict[str, list[float]] = {name: [] for name in alone}
    for _ in range(rounds):
        for name in alone:
            alone[name].append(_seconds_of_rank(n_rows, dim, steps, device, name))
            together[name].append(on_ranks(n_ranks, n_threads, _seconds_of_rank, n_rows, dim, steps, device, name))
    found = {}
    for name in alone:
        one, many = 1 / statistics.median(alone[name]), 1 / statistics.median(together[name])
        found[name] = {"steps_per_second": many, "one_process_steps_per_second": one, "ratio": many / one}
    return {"ranks": n_ranks, "threads_of_a_rank": n_threads, "objectives": found}


def _seconds_of_rank(n_rows: int, dim: int, steps: int, device: str, name: str) -> float:
    return _trainer_seconds(compared_settings(steps, device)[name].trainer(*ring(n_rows, dim)))


def compared_settings(steps: int, device: str, precision: TrainPrecision = "auto") -> dict[str, TrainSettings]:
    """Return the settings of every objective that learns without labels: so many steps, no plateau."""
    fixed: dict[str, Any] = {
        "max_steps": steps,
        "patience": 0,
        "checkpoint_steps": steps,
        "device": device,
        "precision": precision,
    }
    return {
        "spectral": SpectralSettings(train=StartConfig(**fixed), n_components=N_COMPONENTS),
        "autoencoder": AutoencoderSettings(train=AutoencoderConfig(**fixed)),
        "siamese": SiameseSettings(train=SiameseConfig(**fixed)),
    }


def _product_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Return the seconds of one product of square matrices, the best of a few."""
    matrix = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE, dtype=dtype, device=device)
    taken = []
    for _ in range(PRODUCTS):
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for a GPU
        taken.append(time.perf_counter() - began)
    return min(taken)


def _compare(
    vectors: ArrayVectors, graph: ArrayGraph, settings: TrainSettings, rounds: int, product_rate: float
) -> dict[str, float]:
    trained, bare = [], []
    for _ in range(rounds):
        trained.append(_trainer_seconds(settings.trainer(vectors, graph)))
        least, operations = _bare(settings.trainer(vectors, graph))
        bare.append(least)
    seconds, least = statistics.median(trained), statistics.median(bare)
    return {
        "steps_per_second": 1 / seconds,
        "bare_steps_per_second": 1 / least,
        "ratio_to_bare": least / seconds,
        "bare_share_of_product": operations / least / product_rate,
    }


def _trainer_seconds(trainer: Trainer[Any, Any]) -> float:
    """Return the seconds of a step of the whole loop, its batches included."""
    began = time.perf_counter()
    trainer.fit(WindowRecorder())
    return (time.perf_counter() - began) / trainer.step


@memory_kept()
def _bare(trainer: Trainer[Any, Any]) -> tuple[float, float]:
    """Return the seconds of forward and backward alone, and their additions and multiplications."""
    device = next(trainer.model.parameters()).device
    steps, factors = trainer.schedule.max_steps, training_factors(trainer.config.precision, device)
    batches: list[Batch] = [trainer.sampler.batch(step).to(device) for step in range(WARMUP_STEPS + steps)]
    for batch in batches[:WARMUP_STEPS]:
        _forward_and_backward(trainer.network, batch, factors)
    began = time.perf_counter()
    for batch in batches[WARMUP_STEPS:]:
        _forward_and_backward(trainer.network, batch, factors)
    seconds = (time.perf_counter() - began) / steps
    n_weights = sum(weight.numel() for weight in trainer.network.parameters() if weight.ndim == 2)
    return seconds, 6.0 * n_weights * statistics.mean(len(batch.vectors) for batch in batches)


def _forward_and_backward(network: nn.Module, batch: Batch, factors: Factors) -> None:
    network.zero_grad(set_to_none=True)
    with multiplied_in(factors):
        loss = outputs_in(factors, network, batch.vectors).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
    float(loss.detach())  # waits for a GPU


def ring(n_rows: int, dim: int) -> tuple[ArrayVectors, ArrayGraph]:
    """Return rows and a graph that joins neighbours in number: what it joins does not change what a step costs."""
    neighbors = (np.arange(n_rows)[:, None] + np.arange(1, N_NEIGHBORS + 1)) % n_rows
    affinities = np.random.default_rng(0).random((n_rows, N_NEIGHBORS), dtype=np.float32)
    return ArrayVectors(Mixture(dim).rows(0, n_rows)[0]), ArrayGraph(neighbors, affinities)
