"""What node-hours and storage cost: a small YAML file to money."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, NonNegativeFloat, ValidationError

from distspectral.errors import ConfigError, first_line
from distspectral.frozen import FrozenModel, expected

EXAMPLE = "node_hour: {H200: 30.0, cpu: 1.5}\nstorage_gb_month: 0.02\ncurrency: EUR"


class Prices(FrozenModel):
    """Prices of one provider."""

    node_hour: dict[str, NonNegativeFloat] = Field(
        description="of a node by kind: an accelerator's name for a node of eight, cpu for a node without"
    )
    storage_gb_month: NonNegativeFloat = Field(0.0, description="of 10^9 bytes kept for a month")
    currency: str = Field("", description="shown behind sums")

    def of_node(self, kind: str, file: str) -> float:
        """Return the price of a node-hour.

        Raises:
            ConfigError: the file has none for this kind.
        """
        if kind not in self.node_hour:
            raise ConfigError(f"{file}: node_hour has no price for {kind}, only {', '.join(self.node_hour)}; add it")
        return self.node_hour[kind]


def load_prices(path: str) -> Prices:
    """Return the prices of a YAML file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
        return Prices.model_validate(values)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problems = error.errors() if isinstance(error, ValidationError) else []
        told = (f"{'.'.join(map(str, one['loc']))}: expected {expected(one)}" for one in problems)
        reason = "; ".join(told) or first_line(error)
        raise ConfigError(f"{path}: not a list of prices ({reason}); write for example\n{EXAMPLE}") from error
