"""Every row's code: the rows through the autoencoder's first half."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from distspectral.embedding.encode import encode
from distspectral.embedding.forward import forward, rows_of_block
from distspectral.mapping import Mapper, local_map
from distspectral.models.networks import Perceptron
from distspectral.stages.encoding import encoding_stage
from distspectral.stages.stage import Manifests, Work
from distspectral.storage.artifact.directory import MANIFEST, Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.training.checkpoint import restored
from distspectral.training.row_sampling import held_out_rows

ENCODER, DECODER = "encoder.", "decoder."

JUDGED_ROWS = 10_000


def encode_codes(
    vectors: Artifact, training: Artifact, output: Output, device: str = "auto", mapper: Mapper = local_map
) -> Manifest:
    """Write the artifact ``codes``: a vectors artifact of the encoder's outputs at every row.

    Its property ``explained_variance`` is that of :func:`explained_variance`.

    Args:
        vectors: finished ``vectors`` artifact that the autoencoder was trained on.
        training: the finished artifact of its training.
        output: where ``codes`` goes.
        device: ``auto``, ``cpu`` or ``cuda``.
        mapper: hands out the shards that are still missing.

    Raises:
        CollapsedError: all rows have one code.
    """
    explained = explained_variance(load_encoder(training), load_encoder(training, DECODER), MappedVectors(vectors))
    load = functools.partial(load_encoder, training)
    return encode((vectors,), output, load, device, mapper, {"explained_variance": explained}, "autoencoder")


def explained_variance(encoder: Perceptron, decoder: Perceptron, vectors: Vectors) -> float:
    """Return the share of the rows' variance that their codes keep, on rows that training never saw.

    Args:
        encoder: (B, D) to (B, E).
        decoder: (B, E) to (B, D), standardised as the encoder standardises.
        vectors: (N, D) those trained on.
    """
    rows = held_out_rows(vectors.n_rows)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, JUDGED_ROWS).astype(np.int64))]
    squared_error, sums, squares = 0.0, np.zeros(vectors.dim), 0.0
    for part in np.array_split(rows, -(-len(rows) // rows_of_block(vectors.dim))):
        block = vectors.gather(part)
        targets = encoder.standardize(torch.from_numpy(block)).double().numpy()
        squared_error += float(np.square(forward(decoder, forward(encoder, block)) - targets).sum())
        sums, squares = sums + targets.sum(0), squares + float(np.square(targets).sum())
    return 1 - squared_error / (squares - float(sums @ sums) / len(rows))


def load_encoder(training: Artifact, part: str = ENCODER) -> Perceptron:
    """Return the encoder, or the decoder, of a finished autoencoder's training on the CPU, ready to evaluate."""

    def made(state: dict[str, Any]) -> Perceptron:
        return Perceptron.from_state({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})

    return restored(training, "model.pt", made)


def known_variance(artifacts: Mapping[str, Artifact]) -> float | None:
    """Return the share of the variance that a run's codes keep, None where it makes none or has not yet.

    Args:
        artifacts: of the run, by stage.
    """
    codes = artifacts.get(CODES.name)
    if codes is None or not codes.has(MANIFEST):
        return None
    return float(codes.manifest().properties["explained_variance"])


def _run(work: Work) -> Manifest:
    device = work.settings["autoencoder"].train.device
    return encode_codes(work.artifacts["pack"], work.artifacts["autoencoder"], work.output, device, work.mapper)


def _facts(manifests: Manifests) -> dict[str, Any]:
    return {"explained_variance": manifests["codes"].properties["explained_variance"]}


CODES = encoding_stage(
    "codes",
    trained="autoencoder",
    load=lambda work: load_encoder(work.artifacts["autoencoder"]),
    folder="codes",
    purpose="Encode every row by the autoencoder.",
    done="encoded",
    inputs=lambda recipe: ("pack", "autoencoder"),
    run=_run,
    facts=_facts,
    lines=lambda facts: {"codes keep": f"{facts['explained_variance']:.1%} of the variance of rows never seen"},
)
