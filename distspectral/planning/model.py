"""Formulas: what each stage of a run costs, from measured rates, a workload and a cluster; nothing is read or timed.

No term falls when the number of rows N grows. Kept bytes of a row are measured; memory follows from what stages hold.
Shape letters: N rows, B rows of a batch, K neighbours, E functions trained.
"""

from __future__ import annotations

import dataclasses
import math

from distspectral.embedding.forward import BLOCK_ROWS
from distspectral.planning.machines import Cluster
from distspectral.planning.rates import Rates
from distspectral.planning.search import expected_join, fitted_rows
from distspectral.planning.sheet import CACHE_SHARE, GPU_SHARE, GPU_STEP_S, MISS_S, NVLINK, REDUCE_S, WITHIN_NODE, Sheet
from distspectral.planning.workload import Training, Workload
from distspectral.stages import calibrate
from distspectral.storage.rows.packed import BATCH_BYTES

GPU_PAIR_BYTES = 8
"""Moved in an accelerator's memory by one pair of a search: its distance is written, then read for selection."""
DRIVER_ROW_BYTES = 32
"""Of a row at the peak of finding components: four numbers of eight bytes."""
WRITER_BYTES = BATCH_BYTES / 4
"""Of encoded rows before they are written; they are narrow."""
LISTS = ("neighbors", "siamese_neighbors", "graph", "siamese_graph", "reweight")


@dataclasses.dataclass(frozen=True)
class Model:
    """The formulas with their constants filled in, for one number of rows.

    Attributes:
        n_rows: N.
        work: the run.
        rates: measured.
        cluster: the machines.
    """

    n_rows: float
    work: Workload
    rates: Rates
    cluster: Cluster

    def stages(self) -> list[Sheet]:
        """Return the cost of every stage of the chain, in order."""
        return [self._stage(name) for name in self.work.chain]

    def _stage(self, name: str) -> Sheet:
        sheet = Sheet(name, self.n_rows, self.cluster)
        sheet.worker_bytes = sheet.driver_bytes = self.rates.base_bytes
        if name in self.work.trainings:
            self._train(sheet, self.work.trainings[name])
        elif name in self.work.searched:
            self._search(sheet)
        elif name in ("graph", "siamese_graph"):
            self._weigh(sheet)
        else:
            getattr(self, f"_{'encoded' if name in ('codes', 'features', 'encode') else name}")(sheet)
        sheet.start(training=name in self.work.trainings)
        sheet.kept = self._kept(name)
        sheet.storage()
        return sheet

    # ---- rows through something -------------------------------------------------------------------------------

    def _pack(self, sheet: Sheet) -> None:
        sheet.cores({name: self.rates.core_us[name] for name in ("read", "pack")})
        self._fixed(sheet)
        sheet.read, sheet.written = self.n_rows * self.rates.source_bytes, self._kept("pack")
        sheet.worker_bytes += 2 * min(BATCH_BYTES, 4 * self.work.dim * self.n_rows)

    def _encoded(self, sheet: Sheet) -> None:
        source = self.work.represented if sheet.stage == "features" else "pack"
        self._through(sheet, sheet.stage, self.rates.core_us[sheet.stage])
        self._fixed(sheet)
        sheet.read, sheet.written = self._kept(source), self._kept(sheet.stage)
        sheet.worker_bytes += WRITER_BYTES + 4 * BLOCK_ROWS * 2 * self._widest(sheet.stage)

    def _embed(self, sheet: Sheet) -> None:
        self._through(sheet, "embed", self.rates.core_us["embed"])
        self._fixed(sheet)
        sheet.read, sheet.written = self.n_rows * self.rates.source_bytes, self._kept("embed")
        sheet.worker_bytes += 4 * self.work.batch_rows * 2 * (self.work.dim + self._widest("embed"))

    def _through(
        self, sheet: Sheet, network: str, core_us: float, then_us: float = 0.0, most: float = math.inf
    ) -> None:
        """Add rows through a network, which accelerators take off the cores, and other work of at most so many."""
        parts, then = {network: core_us}, f"; then N x {then_us:.3g} us / {min(self.cluster.cores, most):,.0f} cores"
        if self.cluster.gpu is not None:
            parts = {f"{network} beside its network": max(core_us - self.rates.forward_us[network], 0.0)}
            sheet.gpus(2 * self.work.networks[network])
        words = f"N x {sum(parts.values()):.3g} us ({', '.join(parts)}) / {self.cluster.cores:,} cores"
        seconds = sum(parts.values()) / self.cluster.cores + then_us / min(self.cluster.cores, most)
        sheet.add("cores", self.n_rows * seconds / 1e6, words + (then if then_us else ""))

    def _calibrate(self, sheet: Sheet) -> None:
        rates, n_functions = self.rates, self.work.n_functions
        tasks = math.ceil(self.n_rows / calibrate.TASK_ROWS)
        self._through(sheet, "calibrate", rates.core_us["functions"], rates.core_us["edges"], tasks)
        self._fixed(sheet)
        features = self.n_rows * (4 * n_functions + 16)
        sheet.read = sum(map(self._kept, self.work.seen)) + self._kept(self._graph) + features
        sheet.written = sheet.scratch = features
        edges = calibrate.BLOCK_ROWS * (1 + self.work.graph.n_neighbors)
        sheet.worker_bytes += max(32.0 * edges * n_functions, WRITER_BYTES)

    def _cluster(self, sheet: Sheet) -> None:
        seen, us = min(self.n_rows, self.work.sample_rows), self.rates.driver_us["cluster"]
        sheet.add("driver", seen * us / 1e6, f"{seen:,.0f} rows x {us:.3g} us")
        sheet.driver_bytes += 4 * seen * (self.work.dim + 2 * self.work.n_functions)

    def _evaluate(self, sheet: Sheet) -> None:
        sheet.cores({"all pairs": self.rates.core_us["evaluate"] * self.n_rows / self.rates.sample_rows})
        self._fixed(sheet)
        sheet.read = self._kept("encode")

    # ---- the graph --------------------------------------------------------------------------------------------

    def _search(self, sheet: Sheet) -> None:
        source, dim = self.work.searched[sheet.stage]
        rate, config, rows = self.rates.searches[sheet.stage], self.work.graph, self.n_rows
        sheet.worker_bytes += config.task_memory
        sheet.read, sheet.written = 2 * self._kept(source), self._kept(sheet.stage)
        if not config.searches_cells(int(rows)):
            sheet.cores({"all pairs": rate.pair_us * rows})
            return
        sample, gpu = self.rates.sample_rows, self.cluster.gpu
        join = expected_join(rate, config, rows, sample, gpu is not None)
        parts = dict(join.parts_us)
        if gpu is not None:
            del parts["solve"]
            pairs, flops, moved = join.copies**2 * join.cell_rows, 2 * dim / gpu.flops, GPU_PAIR_BYTES / gpu.bandwidth
            words = (
                f"2 x {dim} flop / {gpu.flops:.3g}" if flops > moved else f"{GPU_PAIR_BYTES} B / {gpu.bandwidth:.3g}"
            )
            seconds = rows * pairs * max(flops, moved) / GPU_SHARE / self.cluster.workers
            sheet.add(
                "GPUs", seconds, f"N x {pairs:,.0f} pairs x {words} / {GPU_SHARE:g} / {self.cluster.workers} GPUs"
            )
        sheet.cores(parts)
        fitted = fitted_rows(config, dim, rows, join.cells) / fitted_rows(config, dim, sample, rate.cells)
        sheet.driver({}, rate.fixed_s * max(fitted, 1.0))
        sheet.scratch = join.copies * (self._kept(source) + rows * (40 + 8.0 * config.n_neighbors))
        sheet.read, sheet.written = sheet.read + sheet.scratch, sheet.written + sheet.scratch

    def _weigh(self, sheet: Sheet) -> None:
        lists = self._kept("neighbors" if sheet.stage == "graph" else "siamese_neighbors")
        sheet.cores({"weigh": self.rates.core_us["weigh"]})
        self._facts(sheet, "scales", "components", "degrees")
        sheet.read, sheet.written = 2 * lists + 2 * self._kept(sheet.stage), self._kept(sheet.stage) + 4 * self.n_rows

    def _reweight(self, sheet: Sheet) -> None:
        sheet.cores({"reweight": self.rates.core_us["reweight"]})
        self._facts(sheet, "degrees")
        sheet.read = self._kept("graph") + self._kept("features") + 2 * self._kept("reweight")
        sheet.written = self._kept("reweight")

    def _facts(self, sheet: Sheet, *names: str) -> None:
        """Add what the driver does alone with a graph."""
        parts = {name: self.rates.driver_us[name] for name in names}
        sheet.driver(parts, self.rates.fixed_s.get(sheet.stage, 0.0))
        sheet.worker_bytes += 24 * BLOCK_ROWS * self.work.graph.n_neighbors
        sheet.driver_bytes += DRIVER_ROW_BYTES * self.n_rows

    # ---- training ---------------------------------------------------------------------------------------------

    def _train(self, sheet: Sheet, training: Training) -> None:
        cluster, workers = self.cluster, self.cluster.workers
        share = training.batch / workers
        if cluster.gpu is None:
            step, words = self.rates.steps[sheet.stage].seconds(share), f"{share:,.0f} of {training.batch:,} a worker"
        else:
            sums = 6 * training.weights * training.ends * share / (GPU_SHARE * cluster.gpu.flops)
            step, words = GPU_STEP_S + sums, f"{GPU_STEP_S * 1e3:g} ms and {sums * 1e3:.2g} ms of arithmetic"
        misses = 1 - CACHE_SHARE * cluster.node.memory_bytes / max(sum(map(self._kept, training.reads)), 1.0)
        if (gather := misses * share * training.ends * len(training.reads) * MISS_S) > step:
            step, words = gather, f"{misses:.0%} of the rows are not in memory, {MISS_S * 1e6:g} us each"
        gradient = 4.0 * training.weights
        if workers > 1:
            rate = cluster.node.network if cluster.nodes > 1 else WITHIN_NODE if cluster.gpu is None else NVLINK
            reduce = REDUCE_S + 2 * gradient / rate
            step, words = step + reduce, f"{words}, {reduce * 1e3:.2g} ms of all-reduce"
            sheet.sent = training.steps * 2.0 * gradient * (workers - 1)
        sheet.add("steps", training.steps * step, f"{training.steps:,} steps x {step * 1e3:.3g} ms ({words})")
        if sheet.stage == "train" and "scan" in self.rates.core_us:
            scan = self.rates.core_us["scan"]
            sheet.add("scan", self.n_rows * scan / workers / 1e6, f"N x {scan:.3g} us / {workers} workers")
            sheet.worker_bytes += 8 * self.n_rows / workers
        self._fixed(sheet)
        sheet.read = 4.0 * training.steps * training.batch * training.ends * training.width
        activations = 12 * share * training.ends * (sum(self.work.hidden) + 2 * training.width)
        sheet.worker_bytes += 20.0 * training.weights + activations

    # ---- sizes ------------------------------------------------------------------------------------------------

    @property
    def _graph(self) -> str:
        return next(name for name in ("reweight", "siamese_graph", "graph") if name in self.work.chain)

    def _kept(self, stage: str) -> float:
        """Return the bytes of a stage's artifact; beyond 2^32 rows a neighbour's number takes eight, not four."""
        wide = 4 * self.work.graph.n_neighbors if stage in LISTS and self.n_rows > 2**32 else 0
        return self.n_rows * (self.rates.kept_bytes.get(stage, 0.0) + wide)

    def _widest(self, network: str) -> float:
        """Return a bound of a network's widest layer, from its weights."""
        return max(self.work.dim, *self.work.hidden, math.sqrt(self.work.networks[network]))

    def _fixed(self, sheet: Sheet) -> None:
        if fixed := self.rates.fixed_s.get(sheet.stage, 0.0):
            sheet.driver({}, fixed)
