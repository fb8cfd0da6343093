"""Distillation, from its settings to a trainer over rows: a trained network learns the functions that a polish found.

Descent on edges sees a function through its energy, which tells little of one whose neighbours in the spectrum are
near. Where the graph can be polished the functions themselves are known at the rows, and to learn them is a regression.

Shape letters: N rows, B rows of a batch, H units of the last hidden layer, P functions, the constant one included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from distspectral.comm import collectives
from distspectral.models.networks import Perceptron, SpectralNetwork, torch_device
from distspectral.models.orthonorm_layer import OrthonormalLayer, OrthonormConfig, SpectralModel
from distspectral.models.state import restored
from distspectral.objectives.batches import TeachingBatch
from distspectral.objectives.distillation import DistillationObjective
from distspectral.precision import multiplied_in
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.joined import JoinedVectors
from distspectral.storage.rows.vectors import Vectors
from distspectral.training.config import TrainConfig
from distspectral.training.drawn import DrawnTaughtRowSampler, DrawnVectors
from distspectral.training.draws import TaughtRowDraws
from distspectral.training.growth import N_JUDGED
from distspectral.training.loop import Sampler, Trainer
from distspectral.training.row_sampling import TaughtRowSampler
from distspectral.training.settings import TrainSettings

ALIGNED_BATCHES = 16
"""By which the last layer is first solved: 64 rows for each of 256 units."""

DEPENDENT = 1e-6
"""Share of a unit's mass below which a direction among the units is none."""


class DistillConfig(TrainConfig):
    """Polish and distillation of the eigenfunctions, where the graph fits into a task (YAML section ``distill``)."""

    section: ClassVar[str] = "distill"
    most_steps: ClassVar[int] = 1000
    least_steps: ClassVar[int] = 150

    batch_size: PositiveInt = Field(1024, description="rows per step, all workers together")
    learning_rate: PositiveFloat = Field(2e-3, description="of Adam, between warm-up and cool-down")
    enabled: bool = Field(
        True,
        description="whether the trained functions are polished with the whole graph, where it fits into a task of "
        "8 GiB, and the network learns what comes out; false = descent on edges alone, as for larger graphs",
    )


class DistillSettings(TrainSettings):
    """All that decides the distilled network besides the data."""

    train: DistillConfig = DistillConfig()
    n_functions: PositiveInt = Field(description="P that are taught, the constant one included; at least 2")
    trained: str | None = None
    """URI of the finished artifact ``training``, whose network learns on; known once the stages are."""

    def upon(self, artifacts: Mapping[str, Artifact]) -> Self:
        """Return the settings, knowing the trained network."""
        return self.model_copy(update={"trained": artifacts["train"].uri})

    def trainer(self, vectors: Vectors, graph: object = None) -> Trainer[SpectralModel, TeachingBatch]:
        """Return the trainer on rows with the functions beside them; see :meth:`TrainSettings.trainer`."""
        del graph
        assert self.trained is not None, "the stage knows the trained network"
        return self.trainer_upon(load_trained_network(Artifact(self.trained)), vectors)

    def trainer_upon(self, trained: SpectralNetwork, vectors: Vectors) -> Trainer[SpectralModel, TeachingBatch]:
        """Return the trainer, given the trained network, which is not changed.

        Args:
            trained: emits at least P functions of what the network sees.
            vectors: what the network sees, and beside it the columns of a ``polish`` artifact.
        """
        train, n_rows = self.train, vectors.n_rows
        model = _with_functions(trained, self.n_functions).to(torch_device(train.device))
        sampler = self._sampler(vectors, len(trained.perceptron.input_mean))
        n_steps = train.steps(n_rows)
        objective = DistillationObjective(model.network.perceptron.head)
        solve_head(model.network, sampler, min(ALIGNED_BATCHES, n_steps))
        judge = _Judge(model, sampler, n_steps)
        return Trainer(model, model.network.perceptron, objective, sampler, train, n_rows, finish=judge)

    def _sampler(self, vectors: Vectors, n_seen: int) -> Sampler[TeachingBatch]:
        """Return this rank's sampler; the network sees so many features."""
        if isinstance(vectors, DrawnVectors):
            return DrawnTaughtRowSampler(vectors, self.draws(vectors.n_rows).rows, n_seen, self.n_functions)
        assert isinstance(vectors, JoinedVectors), "functions stand beside what the network sees"
        *seen, functions = vectors.parts
        train, rows = self.train, seen[0] if len(seen) == 1 else JoinedVectors(seen)
        size, n_steps = train.batch_size, train.steps(vectors.n_rows)
        return TaughtRowSampler(rows, functions, self.n_functions, batch_size=size, n_steps=n_steps, seed=self.seed)

    def draws(self, n_rows: int) -> TaughtRowDraws:
        """Return the rows of all batches; see :meth:`TrainSettings.draws`."""
        return TaughtRowDraws(n_rows, self.train.batch_size, self.train.steps(n_rows), self.seed)

    def n_finishing(self, n_rows: int) -> int:
        """Return how many rows the last layer is first solved by, and judge what was learned."""
        del n_rows
        return (ALIGNED_BATCHES + N_JUDGED) * self.train.batch_size

    @property
    def shape(self) -> dict[str, Any]:
        """Functions, all of which are kept; the hidden layers are those of the trained network."""
        return {"n_functions": self.n_functions}

    def facts(self, vectors: Vectors) -> dict[str, Any]:
        """Return the functions taught."""
        return self.shape


def load_trained_network(training: Artifact) -> SpectralNetwork:
    """Return the network of a finished ``training`` or ``distilled`` artifact on the CPU, ready to evaluate."""
    return restored(training, "model.pt", SpectralModel.network_of_state)


def _with_functions(trained: SpectralNetwork, n_functions: int) -> SpectralModel:
    """Return a model that sees what a trained network does and emits its first functions, P in all.

    What is taught is orthonormal, so there is nothing to whiten.
    """
    state = {name: tensor.cpu() for name, tensor in trained.perceptron.state_dict().items()}
    head = {name: state[name][: n_functions - 1] for name in ("head.weight", "head.bias")}
    network = SpectralNetwork.of(Perceptron.from_state(state | head))
    return SpectralModel(network, OrthonormalLayer(n_functions, OrthonormConfig()))


@torch.no_grad()
def solve_head(network: SpectralNetwork, sampler: Sampler[TeachingBatch], n_batches: int) -> None:
    """Make the last layer the one that comes nearest to the functions at the rows of the first batches.

    Trained functions differ from polished ones by sign, order and rotation, and some are missing.

    Args:
        network: P functions, on its device.
        sampler: of this rank's rows.
        n_batches: whose rows these are.

    Communication: one all-reduce of the sums, one of the solution, which is that of the first rank.
    """
    device = network.perceptron.head.weight.device
    sums: dict[str, Tensor] = {}
    with multiplied_in("float32"):
        for step in range(n_batches):
            batch = sampler.batch(step).to(device)
            units = network.units(batch.vectors).double()
            weighed = units * batch.mass[:, None]
            own = {"gram": weighed.T @ units, "moments": weighed.T @ batch.targets.double()}
            sums = {name: sums[name] + new for name, new in own.items()} if sums else own
    total = collectives.all_reduce_sum(sums)
    gram, moments = total["gram"], total["moments"]
    lengths = gram.diagonal().sqrt()
    scale = torch.where(lengths > 0, 1 / lengths, 0)
    shares, directions = torch.linalg.eigh(gram * scale * scale[:, None])
    inverse = torch.where(shares > DEPENDENT, 1 / shares, 0)
    solved = scale[:, None] * (directions @ (inverse[:, None] * (directions.T @ (scale[:, None] * moments))))
    solved = collectives.all_reduce_sum({"solved": solved * (collectives.rank() == 0)})["solved"]
    network.set_head(torch.cat([torch.zeros_like(solved[:, :1]), solved], dim=1))


@dataclasses.dataclass(frozen=True)
class _Judge:
    """Tells what the functions leave unexplained at rows that were never taught.

    Args:
        model: trained, on its device.
        sampler: of this rank's rows.
        n_steps: of the training at most; batches from there on judge.
    """

    model: SpectralModel
    sampler: Sampler[TeachingBatch]
    n_steps: int

    @torch.no_grad()
    def __call__(self) -> dict[str, Any]:
        """Return the mean squared error, and that of each function but the constant. Communication: one all-reduce."""
        network, device = self.model.network.perceptron, self.model.network.perceptron.head.weight.device
        sums: dict[str, Tensor] = {}
        for step in range(self.n_steps, self.n_steps + N_JUDGED):
            batch = self.sampler.batch(step).to(device)
            squares = (network(batch.vectors) - batch.targets).square().double()
            local = {"squares": (batch.mass[:, None] * squares).sum(0), "mass": batch.mass.sum(dtype=torch.float64)}
            sums = {name: sums[name] + new for name, new in local.items()} if sums else local
        total = collectives.all_reduce_sum(sums)
        losses = total["squares"] / total["mass"].clamp(min=torch.finfo(torch.float64).tiny)
        return {"held_out_loss": float(losses.mean()), "held_out_losses": losses.tolist()}
