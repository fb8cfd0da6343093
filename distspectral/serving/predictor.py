"""A finished run as one module with its facts: what exported programs, the server and its benchmark are made of.

Shape letters: B rows, D features, P components, C clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from distspectral.config.load import config_of
from distspectral.embedding.columns import MEANINGS, OF_MAP
from distspectral.errors import FingerprintMismatchError
from distspectral.recipes import MetricRecipe, SpectralRecipe
from distspectral.report.metrics import scores
from distspectral.spectral.orthonormalize import whiten
from distspectral.stages.embed import Models
from distspectral.stages.embed_metric import load_metric
from distspectral.stages.finished_run import METRICS, FinishedRun
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.rows.frame import Frame
from distspectral.training.dscl import DSCLSettings

OUTPUTS = ("embedding", "cluster", "distance", "leaf", "is_outlier")
"""Of a clustered run: (B, P) float32, (B,) int64, (B,) float32, (B,) int64 and (B,) bool."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What maps rows to results.

    Attributes:
        module: framed rows (B, D) float32 to the tensors named by ``outputs``; on the CPU, evaluating.
        outputs: ``embedding`` (B, P) float32; of a clustered run all of :data:`OUTPUTS`, and of one with a map ``x``
            and ``y`` (B,) float32.
        dim: D.
        frame: of the run's rows.
        card: the facts that go with it, JSON-serialisable.
        inputs: fingerprint of each artifact that it was made from.
        vectors: the packed rows that the run was made from, framed; None where there was no run.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    dim: int
    frame: Frame
    card: dict[str, Any]
    inputs: dict[str, str]
    vectors: Artifact | None = None


class Metric(nn.Module):
    """The learned metric alone, its whitening as one matrix.

    Args:
        network: trained, (B, D) to (B, P).
        whitening: (P, P) float64 that its outputs are multiplied by; None where they are taken as they are.
    """

    whitening: Tensor | None

    def __init__(self, network: nn.Module, whitening: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("whitening", whitening)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the embedding (B, P) of rows ``x`` (B, D)."""
        embedding: Tensor = self.network(x)
        if self.whitening is not None:
            embedding = (embedding.double() @ self.whitening).to(embedding.dtype)
        return (embedding,)


def load_predictor(root: Artifact) -> Predictor:
    """Return what a finished run has learned.

    Args:
        root: the run's directory.

    Raises:
        ArtifactError: a stage is not finished, its files are damaged, or it was made from another one's output.
    """
    run = FinishedRun(root)
    predictor = LOADERS[run.kind](run)
    for stage, fingerprint in predictor.inputs.items():
        if run.artifact(stage).manifest().fingerprint != fingerprint:
            raise FingerprintMismatchError(f"{root.uri}: a run replaced its {stage} meanwhile; begin again")
    return predictor


def _spectral(run: FinishedRun) -> Predictor:
    model, clusters, tree = (run.artifact(stage) for stage in ("calibrate", "cluster", "tree"))
    grown, found = run.require("tree"), run.require_read("cluster", "tree")
    calibrated, packed = run.require_read("calibrate", "cluster"), run.require_read("pack", "calibrate")
    models = Models(model, clusters, tree)
    inputs = {"calibrate": calibrated.fingerprint, "cluster": found.fingerprint, "tree": grown.fingerprint}
    if config_of(run.root).map.enabled:
        inputs["map"] = run.require("map").fingerprint
        run.require_read("calibrate", "map")
        models = Models(model, clusters, tree, run.artifact("map"))
    module = models.embedder().eval()
    n_leaves = len(module.assigner.leaves)
    properties, frame = calibrated.properties, Frame.of_properties(packed.properties["frame"])
    n_clusters = found.properties["n_clusters"]
    weights = "weighted by degree" if properties["laplacian"] == "random_walk" else "with equal weights"
    functions = f"eigenfunctions by eigenvalue, the constant 1 first, orthonormal over the training rows {weights}"
    stated = model.read_json("model_card.json")
    del stated["input"], stated["output"]
    card = stated | {
        "inputs": [_input_facts(properties["dim"], frame)],
        "outputs": [
            _output_facts("embedding", "float32", [properties["n_components"]], functions),
            _output_facts("cluster", "int64", [], f"0 to {n_clusters - 1}, that of the nearest centroid"),
            _output_facts("distance", "float32", [], "to that centroid, where functions are scaled for clustering"),
            _output_facts("leaf", "int64", [], f"0 to {n_leaves - 1}, of the tree, inside the cluster"),
            _output_facts("is_outlier", "bool", [], "farther than usual from its cluster's mean or its leaf"),
            *(_output_facts(name, "float32", [], MEANINGS[name]) for name in OF_MAP if models.map is not None),
        ],
        "clusters": n_clusters,
        "training_data": _data_facts(packed),
        "metrics": _scores(run.root),
    }
    return Predictor(
        module,
        (*OUTPUTS, *(() if models.map is None else OF_MAP)),
        properties["dim"],
        frame,
        card,
        inputs,
        run.artifact("pack"),
    )


def _metric(run: FinishedRun) -> Predictor:
    encoded, trained = run.require("embed"), run.require_read("train", "embed")
    packed = run.require_read("pack", "train")
    settings = DSCLSettings.model_validate(trained.config)
    dscl = settings.dscl.model_copy(update={"whiten": encoded.config["whiten"]})
    metric = load_metric(run.artifact("train"), settings.model_copy(update={"dscl": dscl}))
    facts, frame = trained.properties, Frame.of_properties(packed.properties["frame"])
    module = Metric(metric, None)
    if dscl.whiten:
        factor: Tensor = metric.orthonormal.cholesky_factor  # type: ignore[union-attr, assignment]
        module = Metric(metric.network, whiten(torch.eye(len(factor), dtype=torch.float64), factor))  # type: ignore[arg-type]
    meaning = "cosines are the learned similarity" + (", whitened" if dscl.whiten else "")
    card = {
        "what": "maps a raw vector to an embedding learned from labels, for classes never seen too",
        "inputs": [_input_facts(facts["dim"], frame)],
        "outputs": [_output_facts("embedding", "float32", [facts["n_components"]], meaning)],
        "classes_learned_from": facts["n_train_classes"],
        "training_data": _data_facts(packed),
        "training": {name: trained.metrics[name] for name in ("steps", "stopped_because")},
        "settings": trained.config,
        "metrics": _scores(run.root),
        "limits": "rows far from the training data get an embedding too; nothing here warns of them",
    }
    inputs = {"train": trained.fingerprint, "embed": encoded.fingerprint}
    return Predictor(module.eval(), ("embedding",), facts["dim"], frame, card, inputs, run.artifact("pack"))


def _input_facts(dim: int, frame: Frame) -> dict[str, Any]:
    meaning, shape = "the values of the vector column as they are", ["rows", dim]
    if frame.factor != 1.0:
        meaning += f"; the program multiplies them by {frame.factor:g} (data.scale)"
    if not frame.is_plain:
        meaning += "; the program moves and scales them to what float32 holds, for which it takes float64"
    return {"name": "vectors", "dtype": frame.input_type, "shape": shape, "meaning": meaning, "scale": frame.factor}


def _output_facts(name: str, dtype: str, shape: list[int], meaning: str) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": ["rows", *shape], "meaning": meaning}


def _data_facts(packed: Manifest) -> dict[str, Any]:
    properties = packed.properties
    return {
        "rows": packed.n_rows,
        "shards": len(packed.shards),
        "features": properties["dim"],
        "mean_variance_of_a_feature": properties["variance"],
        "fingerprint": packed.fingerprint,
    }


def _scores(root: Artifact) -> dict[str, Any]:
    """Return the run's scores by labels, if it had any."""
    return scores(root.read_json(METRICS)) if root.has(METRICS) else {}


LOADERS: dict[str, Callable[[FinishedRun], Predictor]] = {SpectralRecipe.kind: _spectral, MetricRecipe.kind: _metric}
"""By kind of run."""
