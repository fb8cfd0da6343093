"""From the raw vector to its eigenfunctions: the encoders whose outputs the perceptron was trained on, then it.

Shape letters: B rows, D features of a raw row, P components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from distspectral.models.networks import Perceptron

Space = Literal["vector", "code", "siamese"]
"""What a network can see of a row: the row itself, its code, its place in the Siamese space."""


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return the columns of all parts, (B, ...) each; a COO tensor where one of them is."""
    if any(part.is_sparse for part in parts):
        return torch.cat([part if part.is_sparse else part.to_sparse() for part in parts], dim=1).coalesce()
    return torch.cat(list(parts), dim=1)


class EncodedNetwork(nn.Module):
    """All that an embedding needs, in one module.

    Args:
        perceptron: from the inputs side by side to (B, P).
        inputs: what it sees, in the order it was trained with.
        encoder: from the raw row to its code; None where rows are not encoded.
        siamese: from the code, or the raw row where there is none, to the Siamese space; None where not needed.
    """

    perceptron: Perceptron

    def __init__(
        self,
        perceptron: Perceptron,
        inputs: Sequence[Space] = ("vector",),
        encoder: Perceptron | None = None,
        siamese: Perceptron | None = None,
    ) -> None:
        super().__init__()
        assert encoder is not None or "code" not in inputs, inputs
        assert siamese is not None or "siamese" not in inputs, inputs
        self.inputs = tuple(inputs)
        self.perceptron, self.encoder, self.siamese = perceptron, encoder, siamese

    @property
    def dim(self) -> int:
        """D."""
        return len((self.encoder or self.siamese or self.perceptron).input_mean)

    def seen(self, x: Tensor) -> Tensor:
        """Return what the perceptron sees (B, S) of raw rows ``x`` (B, D); both dense or COO tensors."""
        spaces: dict[str, Tensor] = {"vector": x}
        represented = x
        if self.encoder is not None:
            represented = spaces["code"] = self.encoder(x)
        if self.siamese is not None:
            spaces["siamese"] = self.siamese(represented)
        return side_by_side([spaces[name] for name in self.inputs])

    def forward(self, x: Tensor) -> Tensor:
        """Return the functions (B, P) at raw rows ``x`` (B, D), dense or a COO tensor."""
        outputs: Tensor = self.perceptron(self.seen(x))
        return outputs

    def state(self) -> dict[str, Any]:
        """Return all of it as tensors and plain values."""
        parts = {"perceptron": self.perceptron, "encoder": self.encoder, "siamese": self.siamese}
        return {name: part.state_dict() for name, part in parts.items() if part is not None} | {
            "inputs": list(self.inputs)
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the network whose :meth:`state` this is, ready to evaluate."""
        parts = {
            name: Perceptron.from_state(state[name]) for name in ("perceptron", "encoder", "siamese") if name in state
        }
        return cls(inputs=state["inputs"], **parts).eval()
