"""The trainings of one fit, stage by stage, each begun with the weights that an earlier fit left, if there was one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distspectral.errors import ConfigError, first_line
from distspectral.estimators.progress import Verbose, fit_shown
from distspectral.graph.trial import Trial
from distspectral.stages.train import take_weights
from distspectral.training.loop import Trainer
from distspectral.training.run_log import OnWindow

Weights = dict[str, Tensor]


class Trainings:
    """Trains networks, and keeps their weights and windows by the stage that trains them in a run.

    Args:
        verbose: see :func:`distspectral.estimators.progress.fit_shown`.
        on_window: hears of each window.
        begun: weights by stage to begin with; None: random ones.
        moved: whether the rows that those were learned from lay in another frame.
        trial: what decided on the space that those know; None: it is decided anew.

    Attributes:
        weights: by stage, on the CPU.
        histories: windows by stage.
    """

    def __init__(
        self,
        verbose: Verbose = "auto",
        on_window: OnWindow | None = None,
        begun: Mapping[str, Weights] | None = None,
        moved: bool = False,
        trial: Trial | None = None,
    ) -> None:
        self.verbose, self.on_window, self.begun, self.moved, self.trial = verbose, on_window, begun, moved, trial
        self.weights: dict[str, Weights] = {}
        self.histories: dict[str, list[dict[str, Any]]] = {}

    @property
    def is_silent(self) -> bool:
        """Whether the user asked for nothing to be shown."""
        return not self.verbose

    def fit(self, stage: str, trainer: Trainer[Any, Any]) -> None:
        """Train to the end of the schedule.

        Raises:
            ConfigError: there are weights to begin with, of a network of another shape.
            NonFiniteStepError, RankDeficientError: training cannot go on.
        """
        self._begin(stage, trainer.model)
        self.go_on(stage, trainer)
        self._keep(stage, trainer.model)

    def go_on(self, stage: str, trainer: Trainer[Any, Any]) -> None:
        """Train a network that goes on from what this fit has learned, so that an earlier one's weights are no help.

        Raises:
            NonFiniteStepError: training cannot go on.
        """
        self.histories[stage] = fit_shown(trainer, stage, self.verbose, self.on_window)

    def take(self, stage: str, model: nn.Module) -> None:
        """Give a model that nothing trains the earlier one's weights, which the networks behind it know.

        Raises:
            ConfigError: see :meth:`fit`.
        """
        self._begin(stage, model)
        self._keep(stage, model)

    def _begin(self, stage: str, model: nn.Module) -> None:
        if self.begun is None:
            return
        if stage not in self.begun:
            raise ConfigError(
                f"partial_refit: nothing was learned before at the stage {stage}; keep the parameters, give a graph "
                "if fit had one, or call fit"
            )
        try:
            take_weights(model, self.begun[stage], self.moved)
        except RuntimeError as error:  # torch lists every tensor
            why = _misfit(model, self.begun[stage]) or first_line(error)
            raise ConfigError(
                f"partial_refit: the weights learned before do not fit the network of the stage {stage} "
                f"({why}); keep n_clusters, n_components, hidden and the features, or call fit"
            ) from error

    def _keep(self, stage: str, model: nn.Module) -> None:
        self.weights[stage] = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _misfit(model: nn.Module, weights: Weights) -> str | None:
    """Return the first tensor whose shape differs, in words."""
    for name, own in model.state_dict().items():
        if name in weights and weights[name].shape != own.shape:
            return f"{name} is {tuple(own.shape)}, was {tuple(weights[name].shape)}"
    return None
