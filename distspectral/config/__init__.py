"""The run's config: what each package owns, composed, read from YAML and checked before anything starts."""

from __future__ import annotations

from distspectral.config.check import check
from distspectral.config.load import load_config, parse_config
from distspectral.config.run import RunConfig

__all__ = ["RunConfig", "check", "load_config", "parse_config"]
