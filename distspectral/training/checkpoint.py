"""State on disk: tensors and plain values, read back without unpickling code."""

from __future__ import annotations

import io
from typing import Any

import torch

from distspectral.errors import DamagedArtifactError
from distspectral.storage.artifacts import Artifact


def write_state(artifact: Artifact, name: str, state: dict[str, Any]) -> None:
    """Write a state dict as one file of an artifact, whole or not at all."""
    artifact.write_file(name, lambda stream: torch.save(state, stream))


def read_state(artifact: Artifact, name: str) -> dict[str, Any]:
    """Return what :func:`write_state` wrote, tensors on the CPU.

    Raises:
        MissingArtifactError: there is no such file.
        DamagedArtifactError: it cannot be read.
    """
    content = io.BytesIO(artifact.read_bytes(name))
    try:
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DamagedArtifactError(
            f"{artifact.uri}/{name}: not a readable state ({error}); delete the file and run the stage again"
        ) from error
    return state
