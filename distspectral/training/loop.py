"""The outer loop: prefetch, step, look back once per window, checkpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from distspectral.comm import collectives
from distspectral.models.orthonorm_layer import SpectralModel
from distspectral.objectives.batches import EdgeBatch
from distspectral.spectral.orthonormalize import cholesky_factor
from distspectral.spectral.rayleigh import whitened_energy
from distspectral.training.config import TrainConfig
from distspectral.training.schedule import PlateauSchedule
from distspectral.training.step import Objective, optimization_step, parallelize


class Sampler(Protocol):
    """Gives this rank's batch of any step, without state."""

    def batch(self, step: int) -> EdgeBatch:
        """Return the batch of ``step``."""


class Observer(Protocol):
    """Hears of windows and checkpoints; called on every rank."""

    def window(self, record: dict[str, Any]) -> None:
        """Take one window's metrics, JSON-serialisable."""

    def checkpoint(self, trainer: Trainer) -> None:
        """Save ``trainer.state_dict()`` if this rank should."""


class SilentObserver:
    """Keeps the windows' metrics in ``history`` and saves nothing."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []

    def window(self, record: dict[str, Any]) -> None:
        """Append the record."""
        self.history.append(record)

    def checkpoint(self, trainer: Trainer) -> None:
        """Do nothing."""


def prefetched(make: Callable[[int], EdgeBatch], first_step: int, device: torch.device) -> Iterator[EdgeBatch]:
    """Yield the batches of ``first_step``, ``first_step + 1``, ... while a thread prepares the next one."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        step = first_step
        upcoming = pool.submit(make, step)
        while True:
            batch = upcoming.result()
            step += 1
            upcoming = pool.submit(make, step)
            yield batch.to(device)


@dataclasses.dataclass
class Window:
    """Sums of the steps since the last look back."""

    loss: float = 0.0
    n_steps: int = 0
    energy: Tensor | None = None
    gram: Tensor | None = None
    began: float = dataclasses.field(default_factory=time.perf_counter)

    def add(self, value: Tensor, total: dict[str, Tensor]) -> None:
        """Take one step's objective and global sums."""
        self.loss += float(value)
        self.n_steps += 1
        self.energy = total["energy"] if self.energy is None else self.energy + total["energy"]
        self.gram = total["gram"] if self.gram is None else self.gram + total["gram"]

    def record(self, step: int, batch_size: int, learning_rate: float, n_kept: int) -> dict[str, Any]:
        """Return the window's metrics; Ritz values are those of its mean energy and Gram, ascending."""
        assert self.energy is not None, "a window holds at least one step"
        assert self.gram is not None, "a window holds at least one step"
        quotient = whitened_energy(self.energy, cholesky_factor(self.gram))
        values = torch.linalg.eigvalsh(quotient).clamp(min=0).tolist()
        seconds = time.perf_counter() - self.began
        return {
            "step": step,
            "loss": self.loss / self.n_steps,
            "ritz_values": values,
            "ritz_sum": sum(values[:n_kept]),
            "learning_rate": learning_rate,
            "edges_per_second": self.n_steps * batch_size / seconds,
            "seconds": seconds,
        }


class Trainer:
    """Everything that changes while training, and nothing else.

    Args:
        model: network and orthonormalising layer, on the training device.
        objective: what a step minimises; shares the model's layer.
        sampler: this rank's batches.
        config: length, rates, windows.
        n_kept: functions whose Ritz values are summed for the plateau test.
    """

    def __init__(
        self, model: SpectralModel, objective: Objective, sampler: Sampler, config: TrainConfig, n_kept: int
    ) -> None:
        self.model, self.objective, self.sampler, self.config, self.n_kept = model, objective, sampler, config, n_kept
        self.network: nn.Module = parallelize(model.network)
        self.optimizer = optim.Adam(model.network.parameters(), lr=config.learning_rate)
        self.schedule = PlateauSchedule(
            config.max_steps,
            warmup_steps=config.warmup_steps,
            cooldown=config.cooldown,
            patience=config.patience,
            tolerance=config.tolerance,
        )
        self.step = 0

    def fit(self, observer: Observer) -> None:
        """Train to the end of the schedule, from wherever the state stands."""
        device = next(self.model.parameters()).device
        self.model.train()
        window = Window()
        batches = prefetched(self.sampler.batch, self.step, device)
        while self.step < self.schedule.last_step:
            learning_rate = self.config.learning_rate * self.schedule.factor(self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            window.add(*optimization_step(self.network, self.objective, next(batches), self.optimizer))
            self.step += 1
            done = self.step == self.schedule.last_step
            if done or self.step % self.config.window_steps == 0:
                record = window.record(self.step, self.config.batch_size, learning_rate, self.n_kept)
                collectives.check_identical(self.model.orthonormal.cholesky_factor, "the moving-average factor")
                self.schedule.observe(self.step, record["ritz_sum"])
                observer.window(record)
                window = Window()
            if done or self.step % self.config.checkpoint_steps == 0:
                observer.checkpoint(self)
        batches.close()  # type: ignore[attr-defined]
        self.model.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return all state: weights, moving average, optimiser, schedule, step."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, whatever the world size that saved it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
