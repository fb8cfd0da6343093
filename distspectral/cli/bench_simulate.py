"""``distspectral bench simulate``: the plan beside a simulation of its tasks."""

from __future__ import annotations

from distspectral.cli.console import print_result
from distspectral.cli.options import AsJson, ConfigPath, Overrides, load
from distspectral.cli.plan import ClusterName, Dim, Rows, measured


def simulate(
    config: ConfigPath,
    overrides: Overrides = None,
    rows: Rows = None,
    dim: Dim = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Compare the plan with a simulation of its tasks: whole slots, shared storage, the driver's hand-out."""
    from distspectral.bench.simulate import simulated_plan
    from distspectral.planning.bills import stage_bills

    loaded = load(config, overrides)
    rates, machines, n_rows = measured(loaded, dim, cluster)
    size = rows or float(n_rows)
    recipe = loaded.recipe(rates.dim, size)
    bills = stage_bills(size, recipe, loaded.settings(recipe), rates, machines)
    print_result("Plan and simulation", simulated_plan(bills), as_json)
