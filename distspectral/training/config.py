"""Settings of the optimisation, whatever the objective."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from distspectral.frozen import FrozenModel


class TrainConfig(FrozenModel):
    """How long and how fast to train (YAML section ``train``)."""

    smallest_share: ClassVar[int] = 1
    """Items of a step's batch that each worker needs."""

    section: ClassVar[str] = "train"
    """The YAML section, which errors name."""

    batch_size: PositiveInt = Field(1024, description="edges, or labelled rows, per step, all workers together")
    max_steps: PositiveInt = Field(2000, description="budget of steps; a plateau ends training earlier")
    learning_rate: PositiveFloat = Field(1e-3, description="of Adam, between warm-up and cool-down")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    cooldown: float = Field(0.4, gt=0, lt=1, description="share of the run over which the rate falls to zero")
    patience: NonNegativeInt = Field(6, description="windows without improvement that begin the cool-down; 0 = never")
    tolerance: float = Field(0.02, ge=0, description="relative improvement, of the Ritz sum or the loss, that counts")
    max_gradient_norm: PositiveFloat | None = Field(None, description="longer gradients are scaled down to it")
    window_steps: PositiveInt = Field(50, description="steps per line of metrics; ranks are compared as often")
    checkpoint_steps: PositiveInt = Field(200, description="steps between checkpoints")
    keep_checkpoints: PositiveInt = Field(2, description="last checkpoints kept; a damaged one falls back to another")
    max_skipped_steps: PositiveInt = Field(
        20, description="steps in a row skipped for NaN, infinity or dependent functions before training stops"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = cuda where there is one")
