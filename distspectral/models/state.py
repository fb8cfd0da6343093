"""State on disk: tensors and plain values, read back without unpickling code and only with their checksums right."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from distspectral.errors import DamagedArtifactError, first_line
from distspectral.storage.artifact.directory import Artifact

T = TypeVar("T")


def write_state(artifact: Artifact, name: str, state: dict[str, Any]) -> None:
    """Write a state dict as one file of an artifact, whole or not at all."""
    content = io.BytesIO()  # torch answers a full disk with an error of its own, that does not tell it from others
    torch.save(state, content)
    artifact.write_bytes(name, content.getbuffer())


def read_state(artifact: Artifact, name: str) -> dict[str, Any]:
    """Return what :func:`write_state` wrote, tensors on the CPU.

    ``torch.save`` writes a zip file with a CRC-32 of each tensor, which ``torch.load`` does not look at.

    Raises:
        MissingArtifactError: there is no such file.
        DamagedArtifactError: it cannot be read, a checksum is wrong, or a tensor holds NaN or infinity.
    """
    content = io.BytesIO(artifact.read_bytes(name))
    try:
        with zipfile.ZipFile(content) as records:
            if (damaged := records.testzip()) is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        content.seek(0)
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers of damaged bytes raise anything
        raise DamagedArtifactError(
            f"{artifact.uri}/{name}: not a readable state ({error}); delete the file and run the stage again"
        ) from error
    for place, tensor in _tensors(state, ""):
        if not tensor.isfinite().all():
            raise DamagedArtifactError(
                f"{artifact.uri}/{name}: {place} holds NaN or infinity, which no training leaves; delete the file and "
                "run the stage again"
            )
    return state


def _tensors(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dictionaries and lists, each with its place."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(inner, f"{place}.{key}".lstrip("."))


def restored(artifact: Artifact, name: str, make: Callable[[dict[str, Any]], T]) -> T:
    """Return what ``make`` makes of a state that :func:`write_state` wrote.

    Raises:
        MissingArtifactError: there is no such file.
        DamagedArtifactError: it cannot be read, or lacks what is asked of it.
    """
    state = read_state(artifact, name)
    try:
        return make(state)
    except Exception as error:  # keys, shapes and types that are not there raise anything
        what = f"{type(error).__name__}: {first_line(error)}"
        raise DamagedArtifactError(
            f"{artifact.uri}/{name}: does not hold what it should ({what}); delete the file and run the stage again"
        ) from error
