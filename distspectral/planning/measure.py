"""Rates of this machine on a sample of the user's rows: every stage runs once, small, in one thread.

What a stage is timed by is the stage itself, so the plan follows the code. Steps of training are timed at two sizes of
batch and the search on two samples; the rest is proportional to the rows.

Shape letters: N rows, S sampled rows, D features, B rows of a batch.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
from threadpoolctl import threadpool_limits

from distspectral.config.run import RunConfig
from distspectral.embedding.forward import forward
from distspectral.graph.distances import under_metric
from distspectral.graph.facts import component_facts, degree_facts
from distspectral.graph.search.exact import exact_solver
from distspectral.graph.search.through_cells import search_cells
from distspectral.graph.store import Graph, MappedGraph, read_neighbors
from distspectral.graph.weights import row_scales
from distspectral.mapping import local_map
from distspectral.orchestration.pipeline import Pipeline
from distspectral.planning.rates import Rates, SearchRate, StepRate
from distspectral.planning.sample import WINDOW, brief_config, copy_sample, disk_rates, read_us
from distspectral.planning.search import merge_us, route_us, solve_us
from distspectral.planning.stopwatch import ALONE, Stopwatch
from distspectral.planning.workload import Workload, workload
from distspectral.report.metrics import stages_of
from distspectral.spectral.affinity import needs_scales
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.joined import open_vectors
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors, Vectors
from distspectral.storage.source.dataset import Source
from distspectral.training.loop import WindowRecorder
from distspectral.training.settings import TrainSettings
from distspectral.training.spectral import build_sampler

LOG = logging.getLogger("distspectral")
LEAST_BATCH = 256
PAIR_QUERIES = 256
"""Rows that are searched for exactly to time a pair."""
GRAPH_FACTS: dict[str, Callable[[Graph], Any]] = {"components": component_facts, "degrees": degree_facts}
"""What the driver finds out of a graph when its edges are weighed; components are the same when they are reweighed."""


def measure(config: RunConfig, source: Source, folder: str) -> Rates:
    """Return the rates of this machine, in one thread.

    Args:
        config: the run.
        source: its opened data.
        folder: on the disk that is to be timed; what is written there is deleted again.

    Raises:
        DistSpectralError: a stage cannot run on the sample.
    """
    began = time.perf_counter()
    n_threads = torch.get_num_threads()
    base = float(psutil.Process().memory_info().rss)
    torch.set_num_threads(1)
    level = LOG.level  # what a sample's graph looks like is no news
    LOG.setLevel(logging.ERROR)
    try:
        with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="distspectral-plan-", dir=folder) as scratch:
            found = _Measurement(config, source, scratch).rates()
            write, read = disk_rates(scratch)
    finally:
        torch.set_num_threads(n_threads)
        LOG.setLevel(level)
    seconds = time.perf_counter() - began
    return Rates(**found, base_bytes=base, disk_write=write, disk_read=read, seconds=seconds)


class _Measurement:
    """One sample and what is measured on it."""

    def __init__(self, config: RunConfig, source: Source, scratch: str) -> None:
        self.source, self.scratch = source, scratch
        self.source_us, n_rows = copy_sample(source, f"{scratch}/data")
        self.config = brief_config(config, n_rows, scratch, source)
        self.work: Workload = workload(self.config, source.dim)
        self.sample = Source.open(self.config.data)
        self.n_rows = self.sample.n_rows
        self.watch = Stopwatch()
        self.pipeline = Pipeline(self.config, self.sample, self.watch, self.watch)

    def rates(self) -> dict[str, Any]:
        for command in stages_of(self.pipeline.plan.chain):
            self.pipeline.command(command)
        work, chain = self.work, self.work.chain
        core_us, forward_us, driver_us = self._tasks()
        fixed_s = {stage: self.watch.spent[stage, ALONE] for stage in chain}
        for stage in (*work.trainings, *work.searched, "cluster"):
            fixed_s.pop(stage, None)
        for stage in set(fixed_s) & {"graph", "siamese_graph", "reweight"}:
            known = ("degrees",) if stage == "reweight" else ("scales", "components", "degrees")
            in_all = sum(driver_us[name] for name in known) * self.n_rows / 1e6
            fixed_s[stage] = max(fixed_s[stage] - in_all, 0.0)
        return {
            "dim": self.source.dim,
            "sample_rows": self.n_rows,
            "source_bytes": sum(shard.size for shard in self.source.shards) / self.source.n_rows,
            "core_us": core_us,
            "forward_us": forward_us,
            "driver_us": driver_us,
            "steps": {stage: self._step_rate(stage) for stage in work.trainings},
            "searches": {stage: self._search_rate(stage) for stage in work.searched if stage in chain},
            "fixed_s": fixed_s,
            "kept_bytes": {stage: self._kept(stage) for stage in chain},
        }

    # ---- rows through something -------------------------------------------------------------------------------

    def _tasks(self) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        """Return microseconds of a row: in tasks, of networks within them, and in the driver alone."""
        watch, chain, plan = self.watch, self.work.chain, self.pipeline.plan

        def us(stage: str, description: str) -> float:
            return watch.spent[stage, description] * 1e6 / self.n_rows

        reread_us = read_us(self.sample, self.n_rows)[0]
        core = {"read": self.source_us, "pack": max(us("pack", "packing") - reread_us, 0.0)}
        rows: dict[str, tuple[Artifact, ...]] = {"codes": (plan.artifact("pack"),), "encode": (plan.artifact("pack"),)}
        rows["features"] = (plan.artifact(self.work.represented),)
        core |= {name: us(name, "encoding") for name in ("codes", "features", "encode") if name in chain}
        driver: dict[str, float] = {}
        if "evaluate" in chain:
            core["evaluate"] = us("evaluate", "evaluating") + us("evaluate", ALONE)
        if "embed" in chain:
            core |= {"weigh": us("graph", "weighing edges"), "functions": us("calibrate", "encoding")}
            core |= {"edges": us("calibrate", "calibrating"), "scan": self._scan_us()}
            core["embed"] = max(us("embed", "embedding") - reread_us, 0.0) + self.source_us
            if "reweight" in chain:
                core["reweight"] = us("reweight", "reweighting edges")
            sampled = min(self.n_rows, self.config.cluster.sample_rows)
            driver = {"scales": self._scales_us()}
            driver |= {name: self._fact_us(facts) for name, facts in GRAPH_FACTS.items()}
            driver["cluster"] = watch.spent["cluster", ALONE] * 1e6 / sampled
        encoded = {stage: core[stage] for stage in chain if stage in ("codes", "features", "encode")}
        return core, self._forward_us(encoded), driver

    def _forward_us(self, encoded: dict[str, float]) -> dict[str, float]:
        """Return microseconds of a row in each network alone."""
        from distspectral.stages.calibrate import load_calibrated_network, load_trained_network
        from distspectral.stages.learned import load_encoder, load_siamese

        plan, packed = self.pipeline.plan, MappedVectors(self.pipeline.plan.artifact("pack"))
        if "embed" not in self.work.chain:
            return dict(encoded)
        settings = self.config.spectral_settings
        networks: dict[str, tuple[torch.nn.Module, Vectors]] = {
            "calibrate": (
                load_trained_network(plan.artifact("train"), settings),
                open_vectors([plan.artifact(name) for name in self.work.seen]),
            ),
            "embed": (load_calibrated_network(plan.artifact("calibrate")), packed),
        }
        if "codes" in encoded:
            networks["codes"] = load_encoder(plan.artifact("autoencoder")), packed
        if "features" in encoded:
            represented = MappedVectors(plan.artifact(self.work.represented))
            networks["features"] = load_siamese(plan.artifact("siamese")), represented
        return {name: self._network_us(*one) for name, one in networks.items()}

    def _network_us(self, network: torch.nn.Module, rows: Vectors) -> float:
        block = np.array(rows.block(0, min(self.n_rows, 4096)))
        return _core_seconds(lambda: forward(network, block)) * 1e6 / len(block)

    # ---- the graph --------------------------------------------------------------------------------------------

    def _fact_us(self, facts: Callable[[Graph], Any]) -> float:
        graph = self.pipeline.plan.artifact("graph")
        return _core_seconds(lambda: facts(MappedGraph(graph))) * 1e6 / self.n_rows

    def _scales_us(self) -> float:
        if not needs_scales(self.config.affinity.kind):
            return 0.0
        lists = self.pipeline.plan.artifact("neighbors")
        names = [shard.name for shard in lists.manifest().shards]

        def scales() -> None:
            for name in names:
                row_scales(read_neighbors(lists, name)[1], self.config.affinity)

        return _core_seconds(scales) * 1e6 / self.n_rows

    def _scan_us(self) -> float:
        plan, settings = self.pipeline.plan, self.config.spectral_settings
        rows = open_vectors([plan.artifact(name) for name in self.work.seen])
        graph = MappedGraph(plan.artifact(plan.graph))
        return _core_seconds(lambda: build_sampler(rows, graph, settings)) * 1e6 / self.n_rows

    def _search_rate(self, stage: str) -> SearchRate:
        """Return what the search took beside what the cost model says, on the sample and on a quarter of it."""
        name, dim = self.work.searched[stage]
        rows = MappedVectors(self.pipeline.plan.artifact(name))
        facts, spent = self.pipeline.plan.artifact(stage).manifest().metrics, self.watch.spent
        cells, copies, n_rows = facts.get("cells", 1), facts.get("copies", 1.0), self.n_rows

        def us(description: str) -> float:
            return spent[stage, description] * 1e6 / n_rows

        wider = 0.0
        if "cells" in facts:
            quarter = ArrayVectors(rows.gather(np.arange(0, n_rows, 4)))
            fewer = search_cells(quarter, Artifact(f"{self.scratch}/quarter-{stage}"), {}, self.config.graph, local_map)
            wider = (copies - fewer.metrics["copies"]) / float(np.log10(n_rows / quarter.n_rows))
        return SearchRate(
            dim=dim,
            truth_us=us("exact neighbours of a sample"),
            route=us("routing rows to cells") / route_us(cells, dim, copies) if cells > 1 else 1.0,
            solve=us("searching cells") / solve_us(facts.get("solver", "exact"), n_rows / cells, n_rows, dim, copies),
            merge=us("merging neighbours") / merge_us(dim, copies),
            pair_us=self._pair_us(rows),
            copies=copies,
            copies_per_decade=max(wider, 0.0),
            cells=cells,
            solver=facts.get("solver", "exact"),
            fixed_s=spent[stage, ALONE],
        )

    def _pair_us(self, rows: Vectors) -> float:
        vectors = under_metric(rows, self.config.graph.metric)
        n_queries = min(PAIR_QUERIES, self.n_rows)
        solver = exact_solver(vectors, self.config.graph)
        return _core_seconds(lambda: solver(vectors, 0, n_queries)) * 1e6 / n_queries / self.n_rows

    # ---- training ---------------------------------------------------------------------------------------------

    def _step_rate(self, stage: str) -> StepRate:
        """Return a line through the steps of the config's batch and of a smaller one."""
        batch, plan = self.work.trainings[stage].batch, self.pipeline.plan
        seconds = _step_seconds(self.watch.windows[stage])
        few = max(batch // 4, min(batch, LEAST_BATCH))
        if few == batch or self.work.chain[-1] == "evaluate":
            return StepRate(fixed_s=0.0, row_s=seconds / batch)
        of_stage: dict[str, TrainSettings] = {
            "autoencoder": self.config.autoencoder_settings,
            "siamese": self.config.siamese_settings,
            "train": self.config.train_settings,
        }
        settings = of_stage[stage]
        smaller = settings.model_copy(update={"train": settings.train.model_copy(update={"batch_size": few})})
        rows = open_vectors([plan.artifact(name) for name in self.work.trainings[stage].reads])
        graph = None if stage == "autoencoder" else plan.artifact("graph" if stage == "siamese" else plan.graph)
        watch = Stopwatch()
        watch.started(stage)
        smaller.trainer(rows, None if graph is None else MappedGraph(graph)).fit(_Windows(watch))
        row_s = max(seconds - _step_seconds(watch.windows[stage]), 0.0) / (batch - few)
        return StepRate(fixed_s=max(seconds - row_s * batch, 0.0), row_s=row_s)

    def _kept(self, stage: str) -> float:
        """Return the bytes of a row in a stage's shards; what has no shards has no bytes that grow."""
        return sum(shard.n_bytes for shard in self.pipeline.plan.artifact(stage).manifest().shards) / self.n_rows


class _Windows(WindowRecorder):
    """Passes windows to a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def window(self, record: dict[str, Any]) -> None:
        """Pass it."""
        self.watch.window(record)


def _step_seconds(windows: list[dict[str, Any]]) -> float:
    """Return core-seconds of a step; the first window, which warms up, is left out."""
    return statistics.fmean(window["core_seconds"] for window in windows[1:]) / WINDOW


def _core_seconds(work: Callable[[], Any]) -> float:
    """Return what the faster of two calls takes."""
    spent = []
    for _ in range(2):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)
