"""A run's bill, stage by stage: the declarations' formulas with their constants filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distspectral.costs.bill import Bill
from distspectral.costs.machines import Machines
from distspectral.costs.rates import Rates
from distspectral.recipes import Recipe
from distspectral.stages import stages_of


def stage_bills(
    n_rows: float, recipe: Recipe, settings: Mapping[str, Any], rates: Rates, machines: Machines
) -> list[Bill]:
    """Return the bill of every stage of a run, in order; nothing is read or timed.

    Args:
        n_rows: N.
        recipe: of the run; where it is open whether codes are searched, they are taken to be.
        settings: of the stages, as :meth:`distspectral.config.RunConfig.settings` returns them.
        rates: measured.
        machines: that do the work.
    """
    made = []
    for stage in stages_of(recipe):
        bill = Bill(stage.name, n_rows, recipe, settings, rates, machines)
        stage.cost(bill)
        bill.start(training=stage.trains)
        bill.storage()
        made.append(bill)
    return made
