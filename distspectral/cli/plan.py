"""``distspectral plan``: what a run would cost at other sizes and on other machines, before it runs."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from distspectral.cli.console import fact_table, print_json, print_note, print_table
from distspectral.cli.options import AsJson, ConfigPath, Overrides, load

if TYPE_CHECKING:
    from distspectral.config import RunConfig
    from distspectral.costs.bill import Bill
    from distspectral.costs.machines import Machines
    from distspectral.costs.rates import Rates
    from distspectral.planning.prices import Prices
    from distspectral.recipes import Recipe

Rows = Annotated[
    float | None,
    typer.Option("--rows", min=1, max=1e15, help="Rows to plan for, such as 1e9. (default: those of the config)"),
]
Dim = Annotated[
    int | None,
    typer.Option(
        "--dim", min=1, max=1 << 20, help="Measure on generated rows of so many features, not on the config's data."
    ),
]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="SHAPE",
        help="8xH200, or 16x32 for 16 workers of 32 cores; @100Gbps after it for a network. (default: this machine)",
        show_default=False,
    ),
]
PriceFile = Annotated[
    str | None, typer.Option("--prices", metavar="FILE", help="YAML of prices by node-hour and GB-month.")
]
LEAST_ROWS = 10_000
DECADES = 3
GENERATED_ROWS = 50_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    rows: Rows = None,
    dim: Dim = None,
    cluster: ClusterName = None,
    prices: PriceFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine on a sample of the data and say what the run would cost, stage by stage."""
    from distspectral.orchestration.engine import wants_ray
    from distspectral.planning.bills import stage_bills
    from distspectral.planning.prices import load_prices

    loaded = load(config, overrides)
    listed = None if prices is None else load_prices(prices)
    rates, machines, n_rows = measured(loaded, dim, cluster)
    if listed is not None and prices is not None:
        listed.of_node(machines.kind, prices)
    recipe = loaded.recipe(rates.dim, rows or n_rows)
    settings = loaded.settings(recipe)

    def on(size: float) -> Machines:
        """Return the machines; this one starts no Ray for few rows."""
        if cluster is not None:
            return machines
        return dataclasses.replace(machines, uses_ray=wants_ray(loaded.ray, size * rates.dim))

    sizes = ladder(rows or float(n_rows))
    bills = {size: stage_bills(size, recipe, settings, rates, on(size)) for size in sizes}
    if as_json:
        print_json(_values(bills, rates, machines, listed))
        return
    _show(loaded, bills, recipe, rates, machines, listed)


def ladder(rows: float) -> list[float]:
    """Return sizes to plan for, ten times apart, up to the one asked for."""
    sizes = [rows / 10**decade for decade in range(DECADES, 0, -1)]
    return [*(size for size in sizes if size >= LEAST_ROWS), rows]


def measured(config: RunConfig, dim: int | None, cluster: str | None) -> tuple[Rates, Machines, int]:
    """Return the rates, measured here, the machines that were asked for, and the rows there are.

    Args:
        config: of the run.
        dim: features of generated rows; None: the config's data.
        cluster: what the machines were asked for by; None: this one.

    Raises:
        ConfigError: there are no such machines; found before anything is measured.
    """
    from distspectral.planning.machines import machines_named, this_machine

    def machines(disk_read: float, disk_write: float) -> Machines:
        here = this_machine(config.ray.max_workers, disk_read, disk_write)
        return here if cluster is None else machines_named(cluster, here)

    machines(1.0, 1.0)
    rates, n_rows = _measured(config, dim)
    return rates, machines(rates.disk_read, rates.disk_write), n_rows


def _measured(config: RunConfig, dim: int | None) -> tuple[Rates, int]:
    """Return the rates, measured beside the run's root, and the rows there are."""
    from distspectral.config.check import check, check_writable
    from distspectral.datasets import Mixture, write_mixture
    from distspectral.planning.measure import measure
    from distspectral.storage.source.dataset import Source, SourceConfig

    if dim is None:
        source = Source.open(config.data)
        check(config, source)
        return measure(config, source, _existing(config.root)), source.n_rows
    check_writable(config.root)
    with tempfile.TemporaryDirectory(prefix="distspectral-rows-", dir=_existing(config.root)) as folder:
        write_mixture(folder, Mixture(dim), GENERATED_ROWS)
        data = SourceConfig(path=folder, id_column="id", label_column="label")
        return measure(config.model_copy(update={"data": data}), Source.open(data), folder), GENERATED_ROWS


def _existing(root: str) -> str:
    """Return the nearest directory at or above the root, where its disk can be timed; a remote root has none."""
    from distspectral.storage.filesystems import absolute

    if "://" in root:
        return tempfile.gettempdir()
    place = Path(absolute(root))
    while not place.is_dir():
        place = place.parent
    return str(place)


# ---- shown -------------------------------------------------------------------------------------------------------


def _values(bills: dict[float, list[Bill]], rates: Rates, machines: Machines, prices: Prices | None) -> dict[str, Any]:
    import dataclasses

    from distspectral.costs.bill import ASSUMPTIONS

    shown = ("seconds", "limit", "worker_bytes", "driver_bytes", "kept", "scratch", "read", "written", "sent")
    sizes = [
        {
            "rows": size,
            "stages": {
                bill.stage: {key: getattr(bill, key) for key in shown}
                | {"node_hours": bill.node_hours, "terms": [dataclasses.asdict(term) for term in bill.terms]}
                for bill in stages
            },
            "seconds": sum(bill.seconds for bill in stages),
            "node_hours": sum(bill.node_hours for bill in stages),
            "kept_bytes": sum(bill.kept for bill in stages),
            "moved_bytes": sum(bill.moved for bill in stages),
            **({} if prices is None else _money(stages, machines, prices)),
        }
        for size, stages in bills.items()
    ]
    assumed = [dict(zip(("name", "value", "source"), one, strict=True)) for one in ASSUMPTIONS]
    cluster = dataclasses.asdict(machines)
    return {"cluster": cluster, "sizes": sizes, "rates": rates.model_dump(), "assumptions": assumed}


def _money(stages: list[Bill], machines: Machines, prices: Prices) -> dict[str, Any]:
    """Return what the nodes cost, and storage by the month."""
    nodes = sum(bill.node_hours for bill in stages) * prices.of_node(machines.kind, "--prices")
    month = sum(bill.kept for bill in stages) / 1e9 * prices.storage_gb_month
    return {"cost": {"nodes": nodes, "storage_a_month": month, "currency": prices.currency}}


def _show(
    config: RunConfig,
    bills: dict[float, list[Bill]],
    recipe: Recipe,
    rates: Rates,
    machines: Machines,
    prices: Prices | None,
) -> None:
    from distspectral.planning.sample import STEPS

    largest = max(bills)
    print_table(_times(bills, machines))
    print_table(_sizes(bills[largest], machines))
    print_table(_formulas(bills[largest]))
    print_table(_constants(rates, machines))
    if recipe.embedded_graph is not None:
        print_table(_capacity(recipe, largest))
    if prices is not None:
        for size, stages in bills.items():
            cost = _money(stages, machines, prices)["cost"]
            month = f"{cost['storage_a_month']:,.2f} {cost['currency']} a month for what is kept"
            print_note(f"{_size(size)} rows: {cost['nodes']:,.2f} {cost['currency']} for nodes, {month}")
    if not machines.all_train and config.ray.max_workers is not None:
        print_note("training is planned for as many workers as are useful: set ray.workers to auto")
    if len(recipe.may_search) > 1:
        print_note("representation: auto is planned with codes; --set representation=input plans the other way")
    if "codes" in recipe.searches.values() and "autoencoder" in recipe.trainings:
        print_note(f"codes were searched after {STEPS} steps of the autoencoder; trained ones may lie in more cells")


def _size(rows: float) -> str:
    """Return a number of rows as people write it: 70000, 1e9."""
    return f"{rows:.6g}".replace("e+0", "e").replace("e+", "e") if rows < 1e5 else f"{rows:.3g}".replace("e+0", "e")


def _times(bills: dict[float, list[Bill]], machines: Machines) -> Table:
    from distspectral.report.formats import duration

    gpus = f", {machines.workers} GPUs" if machines.gpu is not None else ""
    title = f"Time on {machines.name}: {machines.nodes} node(s), {machines.cores:,} cores{gpus}"
    table = Table(title=title, title_justify="left")
    table.add_column("stage", no_wrap=True)
    for size in bills:
        table.add_column(f"{_size(size)} rows", justify="right")
    table.add_column("limited by")
    largest = bills[max(bills)]
    for index, bill in enumerate(largest):
        times = (duration(stages[index].seconds) for stages in bills.values())
        table.add_row(bill.stage, *times, bill.limit)
    table.add_section()
    table.add_row("all", *(duration(sum(bill.seconds for bill in stages)) for stages in bills.values()), "")
    table.add_row("node-hours", *(f"{sum(bill.node_hours for bill in stages):,.2f}" for stages in bills.values()))
    return table


def _sizes(stages: list[Bill], machines: Machines) -> Table:
    from distspectral.report.formats import n_bytes

    table = Table(title=f"Memory and storage at {_size(stages[0].n_rows)} rows", title_justify="left")
    for heading in ("stage", "worker RAM", "driver RAM", "kept", "scratch", "moved", "node-hours"):
        table.add_column(heading, justify="left" if heading == "stage" else "right", no_wrap=heading == "stage")
    for bill in stages:
        sizes = (bill.worker_bytes, bill.driver_bytes, bill.kept, bill.scratch, bill.moved)
        table.add_row(bill.stage, *map(n_bytes, sizes), f"{bill.node_hours:,.2f}")
    table.add_section()
    kept, moved = (sum(getattr(bill, key) for bill in stages) for key in ("kept", "moved"))
    tops = (max(getattr(bill, key) for bill in stages) for key in ("worker_bytes", "driver_bytes"))
    scratch = max(bill.scratch for bill in stages)
    hours = sum(bill.node_hours for bill in stages)
    table.add_row("all", *map(n_bytes, (*tops, kept, scratch, moved)), f"{hours:,.2f}")
    return table


def _formulas(stages: list[Bill]) -> Table:
    table = Table(title=f"How these come about, N = {_size(stages[0].n_rows)}", title_justify="left")
    for heading in ("stage", "resource", "seconds", "formula"):
        table.add_column(heading, overflow="fold")
    for bill in stages:
        for place, term in enumerate(bill.terms):
            name = bill.stage if place == 0 else ""
            table.add_row(name, term.resource, f"{term.seconds:,.3g}", escape(term.formula))
    return table


def _constants(rates: Rates, machines: Machines) -> Table:
    from distspectral.costs.bill import ASSUMPTIONS
    from distspectral.planning.machines import MEASURED
    from distspectral.report.formats import n_bytes

    node = machines.node
    table = Table(title="Constants", title_justify="left")
    for heading in ("what", "value", "whence"):
        table.add_column(heading, overflow="fold")
    sample = f"{MEASURED}, one core, {rates.sample_rows:,} rows x {rates.dim} in {rates.seconds:.0f} s"
    table.add_row("microseconds of a row, a step, a search", "in the formulas", sample)
    if any("components" in kinds for kinds in rates.core_us.values()):
        table.add_row(
            "the driver's part of the graph",
            "scales, components, degrees",
            "as measured; slower beyond the processor's cache",
        )
    if rates.searches:
        search = next(iter(rates.searches.values()))
        grown = f"{search.copies:.2f}, {search.copies_per_decade:.2f} more when rows are ten times as many"
        table.add_row("cells of a row", grown, f"{MEASURED}, on the sample and a quarter of it; extrapolated")
    disk = f"{n_bytes(node.disk_read)}/s read, {n_bytes(node.disk_write)}/s written"
    memory = f"{node.cores} cores, {n_bytes(node.memory_bytes)} memory, {disk}, network {n_bytes(node.network)}/s"
    table.add_row("a node", memory, machines.source)
    if machines.gpu is not None:
        gpu = machines.gpu
        card = (
            f"{gpu.memory_bytes / 1e9:.0f} GB at {gpu.bandwidth / 1e12:.3g} TB/s, {gpu.flops / 1e12:.0f} Tflop/s dense"
        )
        table.add_row(f"a GPU ({machines.kind}), bfloat16", card, "data sheet, not measured")
    for one in ASSUMPTIONS:
        table.add_row(*one)
    return table


def _capacity(recipe: Recipe, n_rows: float) -> Table:
    from distspectral.spectral.capacity import capacity, least_factor

    widths = recipe.layers["train"]
    found, factor = capacity(n_rows, widths), least_factor(n_rows, widths)
    shape = "-".join(map(str, widths))
    verdict = "the network's order reaches it"
    if factor > 1:
        verdict = f"below it: hidden layers {factor} times as wide would reach it, were the data the worst"
    facts = [
        ("spectral clustering of N rows", f"VC dimension at least N/10 = {found.needed:.3g}"),
        (f"network {shape}", f"v = {found.nodes:,} nodes, e = {found.edges:,} edges"),
        ("sigmoid layers, at most of order", f"v^2 e^2 = {found.sigmoid:.2g}"),
        ("ReLU layers, as here, at most of order", f"e L log2 e = {found.relu:.2g}; {verdict}"),
        (
            "what this says",
            "orders for the worst data, constants unknown; the report's Ritz sums of unseen edges say more",
        ),
    ]
    return fact_table("Capacity, a bound from below", facts)
