"""Settings of the optimisation, whatever the objective."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from distspectral.frozen import FrozenModel
from distspectral.precision import TrainPrecision

FULL_ROWS = 70_000
"""Rows from which on ``max_steps: auto`` is the most that a training takes."""


class TrainConfig(FrozenModel):
    """How long and how fast to train (YAML section ``train``)."""

    smallest_share: ClassVar[int] = 1
    """Items of a step's batch that each worker needs."""

    useful_share: ClassVar[int] = 512
    """Items of a step's batch below which one more worker slows a step down: what it does alike on every worker, and
    the all-reduce, cost more than sharing the items saves. Two hyperthreads, default networks on 64 features: workers
    of 256 edges or pairs made .80 and .75 of one worker's steps per second, workers of 512 edges 1.12, of 512 pairs
    1.19, of 2,048 edges 1.54."""

    useful_share_on_gpu: ClassVar[int] = 4096
    """Likewise on accelerators; assumed: a step takes 5 ms of launches there, in which a CPU draws twice as many edges
    (measured: .6 us each)."""

    most_steps: ClassVar[int] = 2000
    """What ``max_steps: auto`` is for many rows."""

    least_steps: ClassVar[int] = 300
    """What it is for few."""

    section: ClassVar[str] = "train"
    """The YAML section, which errors name."""

    batch_size: PositiveInt = Field(1024, description="edges, or labelled rows, per step, all workers together")
    max_steps: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="budget of steps; a plateau ends training earlier; auto = grows with the root of the rows, up to "
        "600 of the eigenfunctions where distillation follows, 1,000 of that, 1,200 of the map, 1,500 of the Siamese "
        "network and 2,000 of the others",
    )
    learning_rate: PositiveFloat = Field(2e-3, description="of Adam, between warm-up and cool-down")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    cooldown: float = Field(0.7, gt=0, lt=1, description="share of the run over which the rate falls to zero")
    patience: NonNegativeInt = Field(6, description="windows without improvement that begin the cool-down; 0 = never")
    tolerance: float = Field(0.02, ge=0, description="relative improvement, of the Ritz sum or the loss, that counts")
    max_gradient_norm: PositiveFloat | None = Field(None, description="longer gradients are scaled down to it")
    window_steps: PositiveInt = Field(50, description="steps per line of metrics; ranks are compared as often")
    checkpoint_steps: PositiveInt = Field(200, description="steps between checkpoints")
    keep_checkpoints: PositiveInt = Field(2, description="last checkpoints kept; a damaged one falls back to another")
    max_skipped_steps: PositiveInt = Field(
        20, description="steps in a row skipped for NaN, infinity or dependent functions before training stops"
    )
    precision: TrainPrecision = Field(
        "auto",
        description="in which the network multiplies, but for the last steps; bfloat16 takes half to three quarters of "
        "the time where a CPU has it, and auto takes it there, except for objective dscl",
    )
    batches: Literal["auto", "mapped", "drawn"] = Field(
        "auto",
        description="mapped: workers draw from all rows and the graph, which each node maps or copies; drawn: rows of "
        "all batches are gathered before training, and workers read nothing else; auto = drawn where that is less than "
        "half of the bytes",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = cuda where there is one")

    def steps(self, n_rows: float) -> int:
        """Return the budget of steps for N rows.

        Few rows need fewer, but not in proportion: a network learns little in a hundred steps, however few the rows.
        Many need no more than the most, for what is learned is smooth: a step's gradient is that of the whole graph.
        """
        if self.max_steps != "auto":
            return self.max_steps
        share = math.sqrt(min(n_rows / FULL_ROWS, 1.0))
        return min(max(math.ceil(share * self.most_steps), self.least_steps), self.most_steps)

    def useful_workers(self, on_gpu: bool) -> int:
        """Return how many workers shorten a step, each getting a useful share of the batch."""
        return max(1, self.batch_size // (self.useful_share_on_gpu if on_gpu else self.useful_share))
