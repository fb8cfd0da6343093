"""The outer loop: prefetch, step, look back once per window, checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from distspectral.comm import collectives
from distspectral.objectives.batches import Batch
from distspectral.precision import Factors, outputs_in, training_factors
from distspectral.training.adam import Adam
from distspectral.training.config import TrainConfig
from distspectral.training.growth import GrowingSampler, batch_growth
from distspectral.training.memory import memory_kept
from distspectral.training.schedule import PlateauSchedule
from distspectral.training.skipping import SKIPPABLE, SkippedSteps
from distspectral.training.step import BatchT, Objective, optimization_step, parallelize, unwrapped
from distspectral.training.threads import useful_threads

ModelT = TypeVar("ModelT", bound=nn.Module)
BatchCoT = TypeVar("BatchCoT", bound=Batch, covariant=True)

EXACT_SHARE, EXACT_STEPS = 0.05, 50
"""Of all steps, the last ones, which multiply in float32, and how many these are at most. On MNIST's graph a whole
cool-down in float32 and none gave the same mean sin^2 (.0020)."""


class Sampler(Protocol[BatchCoT]):
    """Gives this rank's batch of any step, without state: seed, step, rank and world size decide it."""

    def batch(self, step: int) -> BatchCoT:
        """Return the batch of ``step``."""


class TrainingObserver(Protocol):
    """Hears of windows and checkpoints; called on every rank."""

    def window(self, record: dict[str, Any]) -> None:
        """Take one window's metrics, JSON-serialisable."""

    def checkpoint(self, trainer: Trainer[Any, Any]) -> None:
        """Save ``trainer.state_dict()`` if this rank should."""


class WindowRecorder:
    """Keeps the windows' metrics in ``history`` and saves nothing."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []

    def window(self, record: dict[str, Any]) -> None:
        """Append the record."""
        self.history.append(record)

    def checkpoint(self, trainer: Trainer[Any, Any]) -> None:
        """Do nothing."""


def prefetched(make: Callable[[int], BatchT], first_step: int, device: torch.device) -> Generator[BatchT]:
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

    loss: Tensor | float = 0.0
    n_steps: int = 0
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    began: float = dataclasses.field(default_factory=time.perf_counter)
    spent: float = dataclasses.field(default_factory=time.process_time)

    def add(self, value: Tensor, sums: dict[str, Tensor]) -> None:
        """Take one step's objective and the sums that the window's metrics are made of."""
        self.loss = self.loss + value  # on the device: reading it would make each step wait
        self.n_steps += 1
        self.sums = {name: self.sums[name] + new for name, new in sums.items()} if self.sums else sums

    def record(self, step: int, objective: Objective[Any], batch_size: int, learning_rate: float) -> dict[str, Any]:
        """Return the window's metrics."""
        assert self.n_steps, "a window holds at least one step"
        metrics = objective.metrics(self.sums, self.n_steps)
        seconds = time.perf_counter() - self.began
        return {
            "step": step,
            "loss": float(self.loss) / self.n_steps,
            **metrics,
            "learning_rate": learning_rate,
            f"{objective.unit}_per_second": self.n_steps * batch_size / seconds,
            "seconds": seconds,
            "core_seconds": time.process_time() - self.spent,  # of this rank
        }


class Trainer(Generic[ModelT, BatchT]):
    """Everything that changes while training, and nothing else.

    Args:
        model: all that a checkpoint holds, on the training device.
        network: the part of the model that a step runs and differentiates.
        objective: what a step minimises; shares state of the model.
        sampler: this rank's batches.
        config: length, rates, windows.
        n_rows: N, on which the length may depend.
        max_growth: how many times larger batches may become in the cool-down, if the objective judges them.
        finish: called after the last step; what it returns replaces metrics of the last window.
    """

    def __init__(
        self,
        model: ModelT,
        network: nn.Module,
        objective: Objective[BatchT],
        sampler: Sampler[BatchT],
        config: TrainConfig,
        n_rows: int,
        max_growth: int = 1,
        finish: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.model, self.objective, self.sampler, self.config = model, objective, sampler, config
        self.network = parallelize(network)
        self.optimizer = Adam(network.parameters(), lr=config.learning_rate, fused=True)
        self.schedule = PlateauSchedule(
            config.steps(n_rows),
            warmup_steps=config.warmup_steps,
            cooldown=config.cooldown,
            patience=config.patience,
            tolerance=config.tolerance,
        )
        self.skipped = SkippedSteps(config, self.schedule.max_steps)
        self.step, self.growth, self.max_growth, self.finish = 0, 1, max_growth, finish
        self.last_record: dict[str, Any] = {}

    def fit(self, observer: TrainingObserver) -> None:
        """Train to the end of the schedule, from wherever the state stands.

        Raises:
            NonFiniteStepError, RankDeficientError: too many steps in a row could not be taken; on every rank alike.
        """
        device = next(self.model.parameters()).device
        with memory_kept(), self._useful_threads(device):
            self.model.train()
            self._train(observer, device)
            self.model.eval()

    def _train(self, observer: TrainingObserver, device: torch.device) -> None:
        window = Window()
        batches = prefetched(self.sampler.batch, self.step, device)
        while self.step < self.schedule.last_step:
            if self.step == self.schedule.cooldown_start and self.max_growth > 1:
                batches.close()
                self._grow_batches(device)
                batches = prefetched(self.sampler.batch, self.step, device)
            learning_rate = self.config.learning_rate * self.schedule.factor(self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            try:
                value, total = optimization_step(
                    self.network,
                    self.objective,
                    next(batches),
                    self.optimizer,
                    self.config.max_gradient_norm,
                    self._factors(device),
                )
            except SKIPPABLE as error:
                self.skipped.skip(self.step, error)
            else:
                window.add(value, self.objective.window_sums(total))
                self.skipped.taken()
            self.step += 1
            done = self.step == self.schedule.last_step
            finished = self.finish() if done and self.finish else {}
            # a window of skipped steps only goes on into the next one; the last repeats the one before
            if done or (window.n_steps and self.step % self.config.window_steps == 0):
                if window.n_steps:
                    record = window.record(self.step, self.objective, self.batch_size, learning_rate)
                else:
                    record = self.last_record | {"step": self.step, "seconds": 0.0, "core_seconds": 0.0}
                self.last_record = record = record | finished | {"skipped_steps": self.skipped.total}
                for name, tensor in self.objective.shared_state().items():
                    collectives.check_identical(tensor, name)
                self.schedule.observe(self.step, record[self.objective.watched])
                observer.window(record)
                self.optimizer.forget_vanished()
                window = Window()
            if done or self.step % self.config.checkpoint_steps == 0:
                observer.checkpoint(self)
        batches.close()

    @property
    def batch_size(self) -> int:
        """Items of a step, all ranks together."""
        return self.growth * self.config.batch_size

    @property
    def n_drawn(self) -> int:
        """Items of all steps so far, all ranks together."""
        n_grown = max(self.step - self.schedule.cooldown_start, 0)
        return self.config.batch_size * (self.step + (self.growth - 1) * n_grown)

    def _grow_batches(self, device: torch.device) -> None:
        """Make the batches of the cool-down larger, should they hide too much."""
        network, first, factors = unwrapped(self.network), self.schedule.max_steps, self._factors(device)
        self._set_growth(batch_growth(network, self.objective, self.sampler, first, self.max_growth, factors))

    def _set_growth(self, growth: int) -> None:
        self.growth = growth
        if isinstance(self.sampler, GrowingSampler):
            self.sampler.growth = growth

    def _useful_threads(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Return the context in which torch has as many threads as shorten a pass through the network."""
        if device.type != "cpu" or torch.get_num_threads() == 1:
            return contextlib.nullcontext()
        network, rows, factors = (
            unwrapped(self.network).eval(),
            self.sampler.batch(self.step).vectors,
            self._factors(device),
        )

        def run() -> None:
            outputs_in(factors, network, rows).square().sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.zero_grad()

        return useful_threads(run)

    def _factors(self, device: torch.device) -> Factors:
        """Return how the factors of this step's products are rounded: not at all in the last ones.

        Nor in any where the objective does not bear it.
        """
        last, few = self.schedule.last_step, min(round(EXACT_SHARE * self.schedule.last_step), EXACT_STEPS)
        if self.step >= last - few or not self.objective.bears_rounding:
            return "float32"
        return training_factors(self.config.precision, device)

    def state_dict(self) -> dict[str, Any]:
        """Return all state: model, optimiser, schedule, step."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "skipped_steps": self.skipped.total,
            "batch_growth": self.growth,
            "last_record": self.last_record,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, whatever the world size that saved it."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        self.skipped.total = state["skipped_steps"]
        self.last_record = state["last_record"]
        self._set_growth(state["batch_growth"])
