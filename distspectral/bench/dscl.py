"""DSCL beside pytorch-metric-learning's losses: same trunk, same batches, same steps, judged on unseen classes.

Every loss trains in one and the same loop; only the loss and its learning rate differ. Learning rates were chosen
on the last fifth of the training classes (``validate=True``), never on the classes the table is about.
Shape letters: N rows, B rows of a batch, D features, E embedding width, C classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from distspectral.bench.seeds import over_seeds
from distspectral.bench.suite import Results, markdown, shown_score
from distspectral.embedding.forward import in_blocks
from distspectral.errors import ConfigError, MissingDependencyError
from distspectral.models.networks import NetworkConfig, Standardized
from distspectral.models.trunks import embedding_network
from distspectral.spectral import ClassSoftmaxLoss, DSCLLoss
from distspectral.spectral.class_softmax import RIDGE, metric_map, unit_rows
from distspectral.spectral.rayleigh import gram
from distspectral.stages.evaluate import EvaluateConfig, UnitRows, comparison, scores_of
from distspectral.storage.rows.vectors import ArrayVectors
from distspectral.storage.source.dataset import Source, SourceConfig
from distspectral.training.class_sampling import ClassSampler
from distspectral.training.classes import split_classes
from distspectral.training.schedule import PlateauSchedule

RESULTS = "losses.jsonl"
WIDTH = 64
ROWS_PER_CLASS = 5
BATCH_SIZE = 640
CHANNELS = (16, 32, 64)
COOLDOWN = 0.4
WARMUP_STEPS = 20


class Recipe(NamedTuple):
    """How a loss is trained and judged.

    Attributes:
        loss: name of its class.
        options: its arguments.
        learning_rate: of the network.
        proxy_factor: on the learning rate for the loss's own proxies.
        ridge: outputs are compared in the metric of the training rows with this ridge; None = as they are.
    """

    loss: str
    options: dict[str, Any]
    learning_rate: float
    proxy_factor: float = 1.0
    ridge: float | None = None


RECIPES = {
    "dscl": Recipe("DSCLLoss", {}, 2e-2),
    "dscl-softmax": Recipe("ClassSoftmaxLoss", {}, 2e-2, ridge=RIDGE),
    "proxy-anchor": Recipe("ProxyAnchorLoss", {}, 1e-3, 100.0),
    "multi-similarity": Recipe("MultiSimilarityLoss", {}, 2e-2),
    "normalized-softmax": Recipe("NormalizedSoftmaxLoss", {}, 1e-2, 10.0),
    "contrastive": Recipe("ContrastiveLoss", {}, 1e-2),
}
"""Options are pytorch-metric-learning's defaults. Learning rates: best on the validation classes."""
OWN: dict[str, Callable[..., nn.Module]] = {"DSCLLoss": DSCLLoss, "ClassSoftmaxLoss": ClassSoftmaxLoss}


@dataclasses.dataclass(frozen=True)
class Images:
    """Rows to learn from and rows to judge by, of disjoint classes.

    Attributes:
        train: (N, D) with ``labels()`` (N,) in [0, C).
        test: (M, D).
        test_classes: (M,) in [0, K).
    """

    train: ArrayVectors
    test: ArrayVectors
    test_classes: NDArray[np.int64]


def read_images(folder: str, train_classes: int, validate: bool) -> Images:
    """Return labelled pixels of 0 to 255 in shards with the columns vector and label, split by class.

    Args:
        folder: path or URI of the shards.
        train_classes: classes to learn from, the first in sorted order.
        validate: judge by the last fifth of those classes, which are then not learned from; the rest is not read.
    """
    source = Source.open(SourceConfig(path=folder, label_column="label", scale=1 / 255))
    blocks = [block for shard in source.shards for block in source.read_blocks(shard)]
    vectors = np.concatenate([block.vectors for block in blocks])
    labels = np.concatenate([np.asarray(block.labels) for block in blocks])
    classes, _ = split_classes(labels, train_classes)
    if validate:
        vectors, labels = vectors[classes >= 0], labels[classes >= 0]
        classes, _ = split_classes(labels, train_classes - train_classes // 5)
    learned = classes >= 0
    test_classes = np.unique(labels[~learned], return_inverse=True)[1]
    return Images(ArrayVectors(vectors[learned], classes[learned]), ArrayVectors(vectors[~learned]), test_classes)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What all losses have in common.

    Attributes:
        folder: shards of images.
        train_classes: classes to learn from, the first in sorted order; the others judge.
        image_shape: channels, height and width.
        validate: judge by the last fifth of the training classes instead.
        width: E.
        batch_size: B.
        rows_per_class: rows of each class in a batch.
    """

    folder: str
    train_classes: int
    image_shape: tuple[int, int, int]
    validate: bool = False
    width: int = WIDTH
    batch_size: int = BATCH_SIZE
    rows_per_class: int = ROWS_PER_CLASS

    @property
    def key(self) -> dict[str, Any]:
        """What tells its results from others in one file."""
        values = dataclasses.asdict(self)
        return {**values, "folder": Path(self.folder).name, "image_shape": list(self.image_shape)}


def compare_losses(
    comparison: Comparison,
    root: Path,
    names: Sequence[str],
    seeds: Iterable[int],
    steps: Iterable[int],
    learning_rate: float | None = None,
    on_result: Callable[[dict[str, Any]], None] = lambda result: None,
) -> list[dict[str, Any]]:
    """Return one result per length, seed and loss, those of earlier calls among them: scores and core-seconds.

    Args:
        comparison: what all have in common.
        root: of the file of results, :data:`RESULTS`.
        names: of :data:`RECIPES`.
        seeds: of weights and batches; the same for every loss.
        steps: lengths of training.
        learning_rate: in place of the recipes'.
        on_result: called with each result that is new.

    Raises:
        ConfigError: there is no such loss.
        MissingDependencyError: pytorch-metric-learning is not installed.
    """
    if unknown := [name for name in names if name not in RECIPES]:
        raise ConfigError(f"--loss: {unknown[0]!r} is none of {', '.join(RECIPES)}")
    results, images = Results(root / RESULTS, on_result), None
    asked: list[dict[str, Any]] = []
    for n_steps, seed, name in itertools.product(steps, seeds, names):
        recipe = RECIPES[name]
        if learning_rate is not None:
            recipe = recipe._replace(learning_rate=learning_rate)
        key = {"loss": name, "seed": seed, "steps": n_steps, "learning_rate": recipe.learning_rate, **comparison.key}
        if not results.of(key):
            images = images or read_images(comparison.folder, comparison.train_classes, comparison.validate)
            results.add(key | _one(images, recipe, comparison, n_steps, seed))
        asked += results.of(key)
    return asked


def summary(results: Iterable[dict[str, Any]]) -> dict[int, dict[str, dict[str, tuple[float, float]]]]:
    """Return by steps, loss and score the mean over seeds and the standard deviation (0 of a single seed)."""
    by_steps: dict[int, list[tuple[str, dict[str, float]]]] = {}
    for result in results:
        scores = {f"R@{cut}": value for cut, value in result["plain"]["recall_at"].items()}
        scores |= {"NMI": result["plain"]["nmi"], "MAP@R": result["plain"]["map_at_r"]}
        scores["R@1, spectral step"] = result["spectral_step"]["recall_at"]["1"]
        scores["core-seconds"] = result["core_seconds"]
        by_steps.setdefault(result["steps"], []).append((result["loss"], scores))
    return {steps: over_seeds(found) for steps, found in sorted(by_steps.items())}


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the scores by steps and loss, best Recall@1 first, as a table in Markdown."""
    columns = {"R@1": "Recall@1", "NMI": "NMI", "MAP@R": "MAP@R", "R@1, spectral step": "Recall@1, spectral step"}
    rows = [["steps", "loss", *columns.values(), "core-seconds"]]
    for steps, losses in summary(results).items():
        for loss, scores in sorted(losses.items(), key=lambda item: -item[1]["R@1"][0]):
            rows.append([f"{steps:,}", loss, *(_cell(*scores[column]) for column in columns)])
            rows[-1].append(f"{scores['core-seconds'][0]:.0f}")
    return markdown(rows)


def _cell(mean: float, deviation: float) -> str:
    return f"{shown_score(mean)} ({shown_score(deviation)})" if deviation else shown_score(mean)


def make_loss(recipe: Recipe, n_classes: int, width: int = WIDTH) -> nn.Module:
    """Return a recipe's loss for embeddings (B, width) and labels (B,) in [0, n_classes).

    Raises:
        MissingDependencyError: pytorch-metric-learning is not installed.
    """
    if (own := OWN.get(recipe.loss)) is not None:
        return own(**recipe.options)
    try:
        from pytorch_metric_learning import losses
    except ImportError as error:
        raise MissingDependencyError(
            "pytorch-metric-learning is not installed: pip install pytorch-metric-learning, or compare `--loss dscl` "
            "alone"
        ) from error
    kind = getattr(losses, recipe.loss)
    has_proxies = issubclass(kind, losses.WeightRegularizerMixin)
    sizes = {"num_classes": n_classes, "embedding_size": width} if has_proxies else {}
    loss: nn.Module = kind(**sizes, **recipe.options)
    return loss


def _one(images: Images, recipe: Recipe, comparison: Comparison, steps: int, seed: int) -> dict[str, Any]:
    """Train one loss with one seed and return its scores, with and without the spectral step, and core-seconds."""
    labels, width = images.train.labels(), comparison.width
    assert labels is not None, "read_images keeps labels"
    config = NetworkConfig(
        trunk="distspectral.models.trunks:conv_trunk",
        trunk_options={"image_shape": list(comparison.image_shape), "channels": list(CHANNELS)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = embedding_network(images.train.dim, width, config)
        loss = make_loss(recipe, int(labels.max()) + 1, width)
    network.standardize_by(images.train.mean, images.train.scale)
    sampler = ClassSampler(
        images.train,
        labels,
        batch_size=comparison.batch_size,
        rows_per_class=comparison.rows_per_class,
        seed=seed,
    )
    began = time.process_time()
    train(network, loss, recipe, sampler, labels, steps)
    mapped = _mapped(images, network, recipe.ridge)
    core_seconds = time.process_time() - began
    return {"core_seconds": core_seconds, **_scores(in_blocks(network, images.test) @ mapped, images, seed)}


def _mapped(images: Images, network: Standardized, ridge: float | None) -> NDArray[np.float32]:
    """Return what outputs (M, E) are multiplied by, (E, P), before cosines compare them."""
    if ridge is None:
        return np.eye(network(torch.zeros(1, images.train.dim)).shape[1], dtype=np.float32)
    rows = unit_rows(torch.from_numpy(in_blocks(network, images.train)))
    of_rows = torch.ones_like(rows[:, 0])
    return metric_map(gram(rows, of_rows), of_rows.sum(), ridge).float().numpy()


def train(
    network: nn.Module,
    loss: nn.Module,
    recipe: Recipe,
    sampler: ClassSampler,
    labels: NDArray[np.int64],
    steps: int,
) -> None:
    """Train ``network`` with any loss of embeddings and labels: Adam, warm-up, cosine cool-down, no early stop."""
    groups: list[dict[str, Any]] = [{"params": list(network.parameters()), "rate": recipe.learning_rate}]
    if proxies := list(loss.parameters()):
        groups.append({"params": proxies, "rate": recipe.learning_rate * recipe.proxy_factor})
    optimizer = optim.Adam(groups, lr=recipe.learning_rate)
    schedule = PlateauSchedule(steps, warmup_steps=WARMUP_STEPS, cooldown=COOLDOWN, patience=0, tolerance=0.0)
    network.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * schedule.factor(step)
        rows, _ = sampler.global_batch(step)
        value: Tensor = loss(network(torch.from_numpy(sampler.vectors.gather(rows))), torch.from_numpy(labels[rows]))
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()


def _scores(outputs: NDArray[np.float32], images: Images, seed: int) -> dict[str, Any]:
    embedding, rows = ArrayVectors(outputs), np.arange(len(outputs))
    return {
        name: scores_of(
            UnitRows(embedding, rows, *comparison(embedding, rows, name == "spectral_step")),
            images.test_classes,
            EvaluateConfig(device="cpu"),
            seed,
        )
        for name in ("plain", "spectral_step")
    }
