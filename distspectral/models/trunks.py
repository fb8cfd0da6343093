"""Networks by name: any ``torch.nn.Module`` factory, ``module:callable``, between standardised rows and the embedding.

Shape letters: B rows, D features, E embedding width.
"""

from __future__ import annotations

import importlib
import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distspectral.errors import ConfigError
from distspectral.models.networks import NetworkConfig, Perceptron, Standardized

GROUPS = 8
"""Groups of the convolutional trunk's GroupNorm. A row's output depends on no other row, so ranks stay exact."""


def find_trunk(name: str) -> tuple[str, str]:
    """Return the module and the callable that ``module:callable`` names; the module is looked for, no code is run.

    Raises:
        ConfigError: the name has another form, or there is no such module.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise ConfigError(
            f"network.trunk: is {name!r}; expected module:callable, such as mypackage.models:resnet",
            parameters=["network.trunk"],
        )
    places: list[str] | None = None
    for depth, part in enumerate(module.split("."), 1):
        whole = ".".join(module.split(".")[:depth])
        if (loaded := sys.modules.get(whole)) is not None:
            places = getattr(loaded, "__path__", None)
            continue
        finders = sys.meta_path if depth == 1 or places is not None else []
        spec = next(filter(None, (finder.find_spec(whole, places) for finder in finders)), None)
        if spec is None:
            raise ConfigError(
                f"network.trunk: {name!r} cannot be imported (there is no module {part!r}); check its spelling",
                parameters=["network.trunk"],
            )
        try:
            places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        except KeyError:  # a namespace inside a package: only importing the package tells what is in it
            break
    return module, attribute


def trunk_factory(name: str) -> Callable[..., nn.Module]:
    """Return the callable that ``module:callable`` names. Importing the module runs its code.

    Raises:
        ConfigError: the name has another form, or the module or the callable cannot be found.
    """
    module, attribute = find_trunk(name)
    try:
        factory = operator.attrgetter(attribute)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"network.trunk: {name!r} cannot be imported ({error}); check its spelling", parameters=["network.trunk"]
        ) from error
    if not callable(factory):
        raise ConfigError(
            f"network.trunk: {name!r} is a {type(factory).__name__}; expected a callable", parameters=["network.trunk"]
        )
    return factory  # type: ignore[no-any-return]


class TrunkNetwork(Standardized):
    """A trunk of the user's on standardised rows.

    Args:
        dim: D.
        trunk: maps (B, D) to (B, E).
    """

    def __init__(self, dim: int, trunk: nn.Module) -> None:
        super().__init__(dim)
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, E) at rows ``x`` (B, D)."""
        outputs: Tensor = self.trunk(self.standardize(x))
        return outputs


def embedding_network(dim: int, n_outputs: int, config: NetworkConfig) -> Standardized:
    """Return the untrained network of a config: its trunk, or a perceptron with its hidden layers.

    Args:
        dim: D.
        n_outputs: E.
        config: a trunk is called as ``trunk(dim, n_outputs, **trunk_options)`` and maps (B, D) to (B, E).

    Raises:
        ConfigError: the trunk cannot be made, maps to another shape, or mixes rows of a batch across ranks.
    """
    if config.trunk is None:
        return Perceptron(dim, n_outputs, config.hidden)
    factory = trunk_factory(config.trunk)
    try:
        trunk = factory(dim, n_outputs, **config.trunk_options)
    except TypeError as error:
        raise ConfigError(
            f"network.trunk: {config.trunk}({dim}, {n_outputs}, **network.trunk_options) failed ({error}); it is "
            "called with the rows' width, the embedding's width and network.trunk_options",
            parameters=["network.trunk", "network.trunk_options"],
        ) from error
    _check_shape(trunk, dim, n_outputs, config.trunk)
    return TrunkNetwork(dim, trunk)


def _check_shape(trunk: Any, dim: int, n_outputs: int, name: str) -> None:
    if not isinstance(trunk, nn.Module):
        raise ConfigError(
            f"network.trunk: {name} returned a {type(trunk).__name__}; expected a torch.nn.Module",
            parameters=["network.trunk"],
        )
    trunk.eval()
    with torch.no_grad():
        outputs = trunk(torch.zeros(2, dim))
    trunk.train()
    if outputs.shape != (2, n_outputs):
        raise ConfigError(
            f"network.trunk: {name} maps (2, {dim}) to {tuple(outputs.shape)}; expected (2, {n_outputs})",
            parameters=["network.trunk"],
        )


def conv_trunk(
    dim: int, n_outputs: int, *, image_shape: Sequence[int], channels: Sequence[int] = (32, 64, 128)
) -> nn.Module:
    """Return a small convolutional network: each layer halves the image, then one linear layer.

    Args:
        dim: D, which must be the product of ``image_shape``.
        n_outputs: E.
        image_shape: (channels, height, width) of the image that a row holds.
        channels: of each layer, multiples of 8.

    Raises:
        ConfigError: the rows are no such images.
    """
    if math.prod(image_shape) != dim or len(image_shape) != 3:
        raise ConfigError(
            f"network.trunk_options: image_shape {list(image_shape)} holds {math.prod(image_shape)} values, rows have "
            f"{dim}; give channels, height and width whose product is {dim}",
            parameters=["network.trunk_options"],
        )
    n_in, height, width = image_shape
    layers: list[nn.Module] = [nn.Unflatten(1, (n_in, height, width))]
    for index, n_out in enumerate(channels):
        kernel = 3 if index else 5
        layers += [
            nn.Conv2d(n_in, n_out, kernel, stride=2, padding=kernel // 2, bias=False),
            nn.GroupNorm(GROUPS, n_out),
            nn.ReLU(),
        ]
        n_in, height, width = n_out, (height + 1) // 2, (width + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_in * height * width, n_outputs))
