"""The map: two coordinates of a row, from what the eigenfunctions' network sees of it and from those functions.

It begins as the first two functions that are not constant, from which a perceptron learns to depart.
Shape letters: B rows, D features seen, P functions, the constant 1 first, A anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from distspectral.models.encoded import side_by_side
from distspectral.models.networks import Perceptron

N_ANCHORS, SPREAD = 128, 10.0
"""Places of which a row's is a mean, and their deviation from the middle before they learn."""


class MapNetwork(nn.Module):
    """A perceptron on rows and their functions, and a linear map of the functions beside it.

    The perceptron says which of some learned anchors in the plane a row belongs to: a softmax over them weighs their
    places. A linear layer in its stead places new rows between groups that they are like, where no row is. A softmax
    decides, and of 15 nearest rows new ones keep a quarter more.

    The last layer multiplies in float32 whatever the others do: of bfloat16's eight bits a coordinate of 20 leaves
    steps of .1, in which neighbours lie on one point.

    Args:
        trunk: standardises (B, D + P - 1), emits the last hidden layer before its ReLU.
        head: of that layer's units, to a logit for each of A anchors.
        anchors: (A, 2) places.
        start: of P functions, to 2.
    """

    def __init__(self, trunk: Perceptron, head: nn.Linear, anchors: Tensor, start: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.head, self.anchors, self.start = trunk, head, nn.Parameter(anchors), start

    @classmethod
    def untrained(cls, dim: int, n_functions: int, hidden: tuple[int, ...]) -> Self:
        """Return the network whose linear part gives functions 1 and 2; its weights are torch's next random ones.

        Args:
            dim: D.
            n_functions: P.
            hidden: units of each hidden layer, at least one.
        """
        *earlier, last = hidden
        start = nn.Linear(n_functions, 2, bias=False)
        with torch.no_grad():
            start.weight.zero_()
            for coordinate, function in enumerate(range(1, min(n_functions, 3))):
                start.weight[coordinate, function] = 1.0
        trunk = Perceptron(dim + n_functions - 1, last, tuple(earlier))
        head, anchors = nn.Linear(last, N_ANCHORS), SPREAD * torch.randn(N_ANCHORS, 2)
        return cls(trunk, head, anchors - anchors.mean(0), start)

    def standardize_by(self, mean: ArrayLike, scale: ArrayLike) -> None:
        """Set mean (D,) and scale, () or (D,), of the features seen; functions have mean 0 and variance 1."""
        dim = self.trunk.input_mean.numel() - self.start.in_features + 1
        self.trunk.input_mean[:dim] = torch.as_tensor(mean).to(self.trunk.input_mean)
        self.trunk.input_scale[:dim] = torch.as_tensor(scale).to(self.trunk.input_scale)

    def forward(self, seen: Tensor, functions: Tensor) -> Tensor:
        """Return the places (B, 2) float32 of rows.

        Args:
            seen: (B, D), dense or a COO tensor.
            functions: (B, P).
        """
        inner = self.trunk(side_by_side([seen, functions[:, 1:].to(seen.dtype)])).relu()
        if not torch.is_autocast_enabled(inner.device.type):
            return self._placed(inner, functions)
        with torch.autocast(inner.device.type, enabled=False):
            return self._placed(inner.float(), functions.float())

    def _placed(self, inner: Tensor, functions: Tensor) -> Tensor:
        places: Tensor = self.head(inner).softmax(1) @ self.anchors + self.start(functions)
        return places

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the network with this state dict, copied; its shape is read off the tensors."""
        parts = {
            part: {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
            for part in ("trunk", "head", "start")
        }
        with torch.device("meta"):  # no initial weights are drawn
            head = nn.Linear(parts["head"]["weight"].shape[1], len(parts["head"]["weight"]))
            start = nn.Linear(parts["start"]["weight"].shape[1], 2, bias=False)
        for layer, name in ((head, "head"), (start, "start")):
            layer.load_state_dict({key: value.detach().clone() for key, value in parts[name].items()}, assign=True)
        anchors = state["anchors"].detach().clone()
        return cls(Perceptron.from_state(parts["trunk"]), head, anchors, start).eval()


def by_other_functions(state: Mapping[str, Tensor], combination: Tensor) -> dict[str, Tensor]:
    """Return the state dict of the same map of rows by other functions, of which its own are a combination.

    Args:
        state: of a :class:`MapNetwork` on P functions.
        combination: (Q, P); ``others @ combination`` are the P functions. The first of either kind is the constant 1.
    """
    first = "trunk.trunk.0" if "trunk.trunk.0.weight" in state else "trunk.head"
    weight, onto = state[f"{first}.weight"], combination.T.to(state["start.weight"])
    dim, n_more = weight.shape[1] - len(onto) + 1, onto.shape[1] - 1
    of_others = weight[:, dim:] @ onto[1:]
    mean, scale = state["trunk.input_mean"][:dim], state["trunk.input_scale"][:dim]
    return {
        **state,
        f"{first}.weight": torch.cat([weight[:, :dim], of_others[:, 1:]], dim=1),
        f"{first}.bias": state[f"{first}.bias"] + of_others[:, 0],
        "start.weight": state["start.weight"] @ onto,
        "trunk.input_mean": torch.cat([mean, mean.new_zeros(n_more)]),
        "trunk.input_scale": torch.cat([scale, scale.new_ones(n_more)]),
    }


class MapOfFunctions(nn.Module):
    """The map in training: functions from a finished network, which learns no more.

    Args:
        functions: calibrated, (B, D) to (B, P).
        network: what learns.
    """

    def __init__(self, functions: Perceptron, network: MapNetwork) -> None:
        super().__init__()
        self.functions, self.network = functions.requires_grad_(False), network

    def forward(self, seen: Tensor) -> Tensor:
        """Return the places (B, 2) of rows ``seen`` (B, D)."""
        places: Tensor = self.network(seen, self.functions(seen))
        return places
