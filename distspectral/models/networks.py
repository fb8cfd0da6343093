"""The network that maps a vector to E functions: standardise, multilayer perceptron, constant function first.

The constant function is an eigenfunction of every Laplacian here (eigenvalue 0), so it is given as an exact
output instead of being learned, and the learned functions are orthogonal to it from the first step on.

Shape letters: B rows, D features, E functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from distspectral.devices import gpus_are_hidden
from distspectral.errors import ConfigError
from distspectral.frozen import FrozenModel


class NetworkConfig(FrozenModel):
    """Shape of the network (YAML section ``network``)."""

    hidden: tuple[PositiveInt, ...] = Field((512, 256), min_length=1, description="units of each hidden layer")
    trunk: str | None = Field(
        None,
        description="module:callable that makes another torch.nn.Module instead; called with the rows' width, the "
        "embedding's width and trunk_options (objective dscl). Importing it runs its code",
    )
    trunk_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the trunk")


def torch_device(name: str) -> torch.device:
    """Return the device ``name``; ``auto`` is cuda where there is one that this process may use.

    Raises:
        ConfigError: it is another one, or cuda where torch finds no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and not gpus_are_hidden() else "cpu"
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"device: is {name!r}, expected auto, cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device: is cuda, but torch finds no GPU on this machine; choose auto or cpu (of an estimator that was "
            "loaded: set_params(device='auto'))"
        )
    return torch.device(name)


class Standardized(nn.Module):
    """A network whose input is standardised by the training data's statistics.

    Args:
        dim: D, features of a row.

    Buffers ``input_mean`` (D,) and ``input_scale`` (D,) hold the training data's mean and the root of its mean
    feature variance: one scale for all features of a kind, so that nearly constant features are not blown up.
    """

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.zeros(dim))
        self.register_buffer("input_scale", torch.ones(dim))

    def standardize_by(self, mean: ArrayLike, scale: ArrayLike) -> None:
        """Set the input's mean (D,) and scale, () or (D,), from the training data's statistics."""
        self.input_mean.copy_(torch.as_tensor(np.asarray(mean)))
        self.input_scale.copy_(torch.as_tensor(np.asarray(scale)))

    def standardize(self, x: Tensor) -> Tensor:
        """Return rows ``x`` (B, D), centred and scaled."""
        return (x - self.input_mean) / self.input_scale


class Perceptron(Standardized):
    """Standardised input, ReLU hidden layers if any, one linear output layer.

    Args:
        dim: D, features of a row.
        n_outputs: width of the output.
        hidden: units of each hidden layer; none of a linear map.
    """

    def __init__(self, dim: int, n_outputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__(dim)
        layers: list[nn.Module] = []
        for n_in, n_out in zip((dim, *hidden), hidden, strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear((dim, *hidden)[-1], n_outputs)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Perceptron:
        """Return the perceptron with this state dict, copied; its shape is read off the tensors."""
        widths = [len(tensor) for name, tensor in state.items() if name.startswith("trunk.") and tensor.ndim == 2]
        with torch.device("meta"):  # no initial weights are drawn, so the global random state stays as it is
            perceptron = cls(len(state["input_mean"]), len(state["head.weight"]), tuple(widths))
        perceptron.load_state_dict({name: tensor.detach().clone() for name, tensor in state.items()}, assign=True)
        return perceptron.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, n_outputs) at rows ``x`` (B, D), dense or a COO tensor."""
        if not len(self.trunk) and x.is_sparse:
            with torch.autocast(x.device.type, enabled=False):
                return self._first_layer(x)
        outputs: Tensor = self.head(self.units(x))
        return outputs

    def units(self, x: Tensor) -> Tensor:
        """Return what the output layer multiplies (B, H): units of the last hidden layer, else the scaled input."""
        if x.is_sparse:
            with torch.autocast(x.device.type, enabled=False):  # torch multiplies sparse rows in float32 only
                first = self._first_layer(x)
            units: Tensor = self.trunk[1:](first)
        else:
            units = self.trunk(self.standardize(x))
        return units

    def _first_layer(self, x: Tensor) -> Tensor:
        """Return W (x - m) / s + b at sparse rows, multiplied out: centred, they would be dense."""
        first, places = self.trunk[0] if len(self.trunk) else self.head, x.indices()
        assert isinstance(first, nn.Linear), first
        values = x.values() / self.input_scale[places[1]]
        scaled = torch.sparse_coo_tensor(places, values, x.shape, is_coalesced=True, check_invariants=False)
        constant = first.bias - first.weight @ (self.input_mean / self.input_scale)
        outputs: Tensor = torch.sparse.mm(scaled, first.weight.T.contiguous()) + constant
        return outputs


class SpectralNetwork(nn.Module):
    """E functions of a row, the first of them the constant 1.

    Args:
        dim: D, features of a row.
        n_functions: E, at least 2.
        hidden: units of each hidden layer.
    """

    perceptron: Perceptron

    def __init__(self, dim: int, n_functions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.n_functions = n_functions
        self.perceptron = Perceptron(dim, n_functions - 1, hidden)

    @classmethod
    def of(cls, perceptron: Perceptron) -> SpectralNetwork:
        """Return the network whose functions beside the constant one are a perceptron's outputs; it is not copied."""
        with torch.device("meta"):  # as for the perceptron
            network = cls(1, len(perceptron.head.weight) + 1, (1,))
        network.perceptron = perceptron
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Return the functions (B, E) at rows ``x`` (B, D)."""
        learned = self.perceptron(x)
        return torch.cat([learned.new_ones(len(learned), 1), learned], dim=1)

    def units(self, x: Tensor) -> Tensor:
        """Return the constant 1 and the units of the last hidden layer (B, 1 + H), which every function is made of."""
        units = self.perceptron.units(x)
        return torch.cat([units.new_ones(len(units), 1), units], dim=1)

    @torch.no_grad()
    def set_head(self, coefficients: Tensor) -> None:
        """Make the functions ``units @ coefficients``, (1 + H, E) float64, of which the first column is left out."""
        head = self.perceptron.head
        head.weight.copy_(coefficients[1:, 1:].T)
        head.bias.copy_(coefficients[0, 1:])

    @torch.no_grad()
    def folded(self, rotation: Tensor) -> Perceptron:
        """Return a perceptron that emits ``f @ rotation``: the rotation goes into its last linear layer.

        Args:
            rotation: (E, P) float64, kept columns of :func:`distspectral.spectral.rayleigh.rayleigh_ritz`, or
                :func:`distspectral.spectral.rayleigh.aligned`.
        """
        source = self.perceptron
        weight = rotation[1:].T @ source.head.weight.double()
        bias = rotation[0] + rotation[1:].T @ source.head.bias.double()
        head = {"head.weight": weight.to(source.head.weight), "head.bias": bias.to(source.head.bias)}
        return Perceptron.from_state(source.state_dict() | head)
