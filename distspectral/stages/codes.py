"""Every row's code: the rows through the first half of an autoencoder, a trained one or principal components."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from distspectral.embedding.encode import encode
from distspectral.embedding.forward import forward, rows_of_block
from distspectral.mapping import Mapper, local_map
from distspectral.models.networks import Perceptron
from distspectral.models.state import restored
from distspectral.stages.encoding import encoding_stage
from distspectral.stages.stage import Manifests, Work
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.manifest import Manifest
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.vectors import MappedVectors, Vectors
from distspectral.training.row_sampling import held_out_rows

ENCODER, DECODER = "encoder.", "decoder."

JUDGED_ROWS, FEWEST_JUDGED = 10_000, 5
ROUNDING = 1e-12
"""Share of the squares below which a variance is none."""
JUDGING = "judging codes"


def encode_codes(
    vectors: Artifact, coder: Artifact, output: Output, device: str = "auto", mapper: Mapper = local_map
) -> Manifest:
    """Write the artifact ``codes``: a vectors artifact of the encoder's outputs at every row.

    Its property ``explained_variance`` is that of :func:`explained_variance`.

    Args:
        vectors: finished ``vectors`` artifact that the encoder was made for.
        coder: finished artifact ``autoencoder`` or ``pca``.
        output: where ``codes`` goes.
        device: ``auto``, ``cpu`` or ``cuda``.
        mapper: hands out the shards that are still missing.

    Raises:
        CollapsedError: all rows have one code.
    """
    (explained,) = mapper(functools.partial(_judge, coder), [vectors], JUDGING)
    load, trained = functools.partial(load_encoder, coder), coder.manifest().stage
    return encode((vectors,), output, load, device, mapper, {"explained_variance": explained}, trained)


def _judge(coder: Artifact, vectors: Artifact) -> float:
    """Return :func:`explained_variance`; a task, because it reads rows."""
    return explained_variance(load_encoder(coder), load_encoder(coder, DECODER), MappedVectors(vectors))


def explained_variance(encoder: Perceptron, decoder: Perceptron, vectors: Vectors) -> float:
    """Return the share of the rows' variance that their codes keep, on rows that no training saw, or on all if few.

    Args:
        encoder: (B, D) to (B, E).
        decoder: (B, E) to (B, D), standardised as the encoder standardises.
        vectors: (N, D) those trained on.
    """
    held_out = held_out_rows(vectors.n_rows)
    if len(held_out) < FEWEST_JUDGED:
        held_out = range(vectors.n_rows)
    judged = np.unique(np.linspace(0, len(held_out) - 1, JUDGED_ROWS).astype(np.int64))
    rows = held_out.start + held_out.step * judged
    squared_error, sums, squares = 0.0, np.zeros(vectors.dim), 0.0
    for part in np.array_split(rows, -(-len(rows) // rows_of_block(vectors.dim))):
        block = vectors.gather(part)
        targets = encoder.standardize(torch.from_numpy(block)).double().numpy()
        squared_error += float(np.square(forward(decoder, forward(encoder, block)) - targets).sum())
        sums, squares = sums + targets.sum(0), squares + float(np.square(targets).sum())
    variance = squares - float(sums @ sums) / len(rows)
    return 1 - squared_error / variance if variance > ROUNDING * squares else float(squared_error <= ROUNDING * squares)


def load_encoder(coder: Artifact, part: str = ENCODER) -> Perceptron:
    """Return the encoder, or the decoder, of a finished ``autoencoder`` or ``pca`` on the CPU, ready to evaluate."""

    def made(state: dict[str, Any]) -> Perceptron:
        return Perceptron.from_state({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})

    return restored(coder, "model.pt", made)


def _run(work: Work) -> Manifest:
    coder = work.spectral.coder
    device = work.settings[coder if coder in work.recipe.trainings else "train"].train.device
    return encode_codes(work.artifacts["pack"], work.artifacts[coder], work.output, device, work.mapper)


def _facts(manifests: Manifests) -> dict[str, Any]:
    return {"explained_variance": manifests["codes"].properties["explained_variance"]}


CODES = encoding_stage(
    "codes",
    coder=lambda recipe: recipe.coder,
    load=lambda work: load_encoder(work.artifacts[work.spectral.coder]),
    folder="codes",
    purpose="Encode every row by the autoencoder, or by the principal components.",
    done="encoded",
    inputs=lambda recipe: ("pack", recipe.coder),
    run=_run,
    judging=JUDGING,
    facts=_facts,
    lines=lambda facts: {"codes keep": f"{facts['explained_variance']:.1%} of the variance"},
)
