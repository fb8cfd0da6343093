"""What a run of each kind consists of, decided once: its stages, what they read, widths and budgets.

Estimators, stages, plans and reports read a recipe and decide nothing themselves.
"""

from __future__ import annotations

from typing import Literal

from distspectral.recipes.metric import MetricRecipe, MetricSections
from distspectral.recipes.recipe import Recipe
from distspectral.recipes.spectral import SpectralRecipe
from distspectral.recipes.spectral_sections import Representation, SpectralSections

Objective = Literal["spectral", "dscl"]
RECIPES: dict[Objective, type[Recipe]] = {"spectral": SpectralRecipe, "dscl": MetricRecipe}
"""By ``objective`` of a config: the one place that tells the kinds of run apart."""

__all__ = [
    "RECIPES",
    "MetricRecipe",
    "MetricSections",
    "Objective",
    "Recipe",
    "Representation",
    "SpectralRecipe",
    "SpectralSections",
]
