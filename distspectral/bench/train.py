"""Training beside the bare network: how many of its steps a plain torch loop would do in the same time.

Shape letters: N rows, D features, B rows of a batch, K neighbours.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from torch import nn

from distspectral.datasets import Mixture
from distspectral.graph.store import ArrayGraph
from distspectral.objectives.batches import Batch
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.training.autoencoder import AutoencoderConfig, AutoencoderSettings
from distspectral.training.loop import Trainer, WindowRecorder
from distspectral.training.settings import TrainSettings
from distspectral.training.siamese import SiameseConfig, SiameseSettings
from distspectral.training.spectral import SpectralSettings, SpectralTrainConfig

N_NEIGHBORS = 15
N_COMPONENTS = 15
WARMUP_STEPS = 5


def compare_training(n_rows: int, dim: int, steps: int, rounds: int, device: str) -> dict[str, Any]:
    """Return by objective the steps per second of the trainer and of the bare network, and their ratio.

    Bare is forward and backward of the same network on the same batches, drawn beforehand, with the outputs' mean
    square as loss: no sampling, no sums over edges, no optimiser. Both are timed in turns; medians count.

    Args:
        n_rows: N, generated.
        dim: D.
        steps: of each timing.
        rounds: timings of either.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    vectors, graph = ring(n_rows, dim)
    return {
        "rows": n_rows,
        "dim": dim,
        "objectives": {
            name: _compare(vectors, graph, settings, rounds)
            for name, settings in compared_settings(steps, device).items()
        },
    }


def compared_settings(steps: int, device: str) -> dict[str, TrainSettings]:
    """Return the settings of every objective that learns without labels: so many steps, no plateau."""
    fixed: dict[str, Any] = {"max_steps": steps, "patience": 0, "checkpoint_steps": steps, "device": device}
    return {
        "spectral": SpectralSettings(train=SpectralTrainConfig(**fixed), n_components=N_COMPONENTS),
        "autoencoder": AutoencoderSettings(train=AutoencoderConfig(**fixed)),
        "siamese": SiameseSettings(train=SiameseConfig(**fixed)),
    }


def _compare(vectors: ArrayVectors, graph: ArrayGraph, settings: TrainSettings, rounds: int) -> dict[str, float]:
    trained, bare = [], []
    for _ in range(rounds):
        trained.append(_trainer_seconds(settings.trainer(vectors, graph)))
        bare.append(_bare_seconds(settings.trainer(vectors, graph)))
    seconds, least = statistics.median(trained), statistics.median(bare)
    return {"steps_per_second": 1 / seconds, "bare_steps_per_second": 1 / least, "ratio_to_bare": least / seconds}


def _trainer_seconds(trainer: Trainer[Any, Any]) -> float:
    """Return the seconds of a step of the whole loop, its batches included."""
    began = time.perf_counter()
    trainer.fit(WindowRecorder())
    return (time.perf_counter() - began) / trainer.step


def _bare_seconds(trainer: Trainer[Any, Any]) -> float:
    """Return the seconds of forward and backward alone."""
    device = next(trainer.model.parameters()).device
    steps = trainer.config.max_steps
    batches: list[Batch] = [trainer.sampler.batch(step).to(device) for step in range(WARMUP_STEPS + steps)]
    for batch in batches[:WARMUP_STEPS]:
        _forward_and_backward(trainer.network, batch)
    began = time.perf_counter()
    for batch in batches[WARMUP_STEPS:]:
        _forward_and_backward(trainer.network, batch)
    return (time.perf_counter() - began) / steps


def _forward_and_backward(network: nn.Module, batch: Batch) -> None:
    network.zero_grad(set_to_none=True)
    loss = network(batch.vectors).square().mean()
    loss.backward()
    float(loss.detach())  # waits for a GPU


def ring(n_rows: int, dim: int) -> tuple[ArrayVectors, ArrayGraph]:
    """Return rows and a graph that joins neighbours in number: what it joins does not change what a step costs."""
    neighbors = (np.arange(n_rows)[:, None] + np.arange(1, N_NEIGHBORS + 1)) % n_rows
    affinities = np.random.default_rng(0).random((n_rows, N_NEIGHBORS), dtype=np.float32)
    return ArrayVectors(Mixture(dim).rows(0, n_rows)[0]), ArrayGraph(neighbors, affinities)
