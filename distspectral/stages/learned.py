"""The learned representations at every row: codes of the autoencoder, features of the Siamese network."""

from __future__ import annotations

import functools

from distspectral.models.networks import Perceptron
from distspectral.stages.encode import encode
from distspectral.stages.mapping import Mapper, local_map
from distspectral.storage.artifacts import Artifact, Output
from distspectral.storage.manifest import Manifest
from distspectral.training.checkpoint import read_state

ENCODER = "encoder."


def encode_codes(
    vectors: Artifact, training: Artifact, output: Output, device: str = "auto", mapper: Mapper = local_map
) -> Manifest:
    """Write the artifact ``codes``: a vectors artifact of the encoder's outputs at every row.

    Args:
        vectors: finished ``vectors`` artifact that the autoencoder was trained on.
        training: the finished artifact of its training.
        output: where ``codes`` goes.
        device: ``auto``, ``cpu`` or ``cuda``.
        mapper: hands out the shards that are still missing.

    Raises:
        CollapsedError: all rows have one code.
    """
    return encode((vectors,), output, functools.partial(load_encoder, training), device, mapper)


def encode_features(
    vectors: Artifact, training: Artifact, output: Output, device: str = "auto", mapper: Mapper = local_map
) -> Manifest:
    """Write the artifact ``features``: a vectors artifact of the Siamese network's outputs; see :func:`encode_codes`.

    Raises:
        CollapsedError: all rows have come to lie on one point.
    """
    return encode((vectors,), output, functools.partial(load_siamese, training), device, mapper)


def load_encoder(training: Artifact) -> Perceptron:
    """Return the encoder of a finished autoencoder's training on the CPU, ready to evaluate."""
    state = read_state(training, "model.pt")
    return Perceptron.from_state({k.removeprefix(ENCODER): v for k, v in state.items() if k.startswith(ENCODER)})


def load_siamese(training: Artifact) -> Perceptron:
    """Return the network of a finished Siamese training on the CPU, ready to evaluate."""
    return Perceptron.from_state(read_state(training, "model.pt"))
