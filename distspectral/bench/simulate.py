"""The plan beside a simulation of its tasks: what closed formulas neglect, stage by stage.

The same rates and the same machines, but whole tasks on whole slots (see :mod:`distspectral.planning.simulation`).
What takes turns with everything else, the driver's work, steps and starts, is the plan's in both, and so are trainings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from distspectral.costs.bill import IN_TURN, SHARD_ROWS, Amounts, Bill, Map
from distspectral.errors import ConfigError
from distspectral.planning.simulation import Cluster, Task, makespan

SPREAD = 0.25
"""Standard deviation of a task's size over its mean: .24 for the core-seconds of the 63 groups of cells of 300,000
generated rows x 16, .17 for their rows."""
HAND_OUT_S = 1e-3
"""That the driver takes for a task: a millisecond a shard, as measured for ``docs/benchmarks/scale.md``."""
MOST_TASKS = 1_000_000
"""Of a stage: a minute or two of simulation."""


def simulated_plan(bills: Sequence[Bill], seed: int = 0) -> dict[str, Any]:
    """Return by stage what the plan says, what the simulation says, and what limits the stage in it.

    Args:
        bills: of a run, as :func:`distspectral.planning.bills.stage_bills` returns them.
        seed: of the sizes of tasks.

    Raises:
        ConfigError: the tasks are too many.
    """
    stages = {bill.stage: simulated_stage(bill, seed) for bill in bills}
    planned, simulated = (sum(one[key] for one in stages.values()) for key in ("planned_seconds", "simulated_seconds"))
    tasks = sum(one["tasks"] for one in stages.values())
    return {
        "rows": bills[0].n_rows,
        "cluster": bills[0].machines.name,
        "stages": stages | {"all": _compared(planned, simulated, tasks, "")},
        "most_rows_of_a_shard": SHARD_ROWS,
        "spread_of_task_sizes_share": SPREAD,
        "hand_out_of_a_task_ms": 1e3 * HAND_OUT_S,
    }


def simulated_stage(bill: Bill, seed: int = 0) -> dict[str, Any]:
    """Return one stage's part of :func:`simulated_plan`."""
    tasks = sum(one.n_tasks for one in bill.maps)
    if not tasks:
        return _compared(bill.seconds, bill.seconds, 0, bill.limit)
    if tasks > MOST_TASKS:
        raise ConfigError(f"--rows: {tasks:,} tasks of {bill.stage} are too many to simulate; ask for fewer rows")
    spent, generator = Counter[str](), np.random.default_rng(seed)
    for term in bill.terms:
        if term.resource in IN_TURN:
            spent.update({term.resource: term.seconds})
    for one, amounts in zip(bill.maps, bill.amounts, strict=True):
        found = makespan(_tasks(one.n_tasks, amounts, generator), _slots(one, bill))
        spent.update({found.limit: found.seconds})
    return _compared(bill.seconds, math.fsum(spent.values()), tasks, max(spent, key=spent.__getitem__))


def _compared(planned: float, simulated: float, tasks: int, limit: str) -> dict[str, Any]:
    ratio = simulated / max(planned, 1e-9)
    return {
        "planned_seconds": planned,
        "simulated_seconds": simulated,
        "ratio": ratio,
        "tasks": tasks,
        "limited_by": limit,
    }


def _tasks(n_tasks: int, amounts: Amounts, generator: np.random.Generator) -> list[Task]:
    """Return tasks of uneven size that come to the amounts together."""
    sizes = generator.lognormal(0.0, math.sqrt(math.log1p(SPREAD**2)), n_tasks)
    sizes /= sizes.sum()
    return [
        Task(size * amounts.read, size * amounts.core_s, size * amounts.gpu_s, size * amounts.written)
        for size in sizes.tolist()
    ]


def _slots(one: Map, bill: Bill) -> Cluster:
    """Return where the tasks of a map run: one on each core, or one beside each accelerator that they make use of."""
    machines, node = bill.machines, bill.machines.node
    slots, cores = one.slots(machines)
    return Cluster(
        slots=slots,
        cores=cores,
        disk_read=node.disk_read * machines.nodes,
        disk_write=node.disk_write * machines.nodes,
        network=node.network * machines.nodes if machines.nodes > 1 else math.inf,
        nodes=machines.nodes,
        hand_out_s=HAND_OUT_S if machines.uses_ray else 0.0,
    )
