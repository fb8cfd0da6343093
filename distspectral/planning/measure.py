"""Rates of this machine on a sample of the user's rows: every stage runs once, small, in one thread.

A stage is timed by running it, kind of task by kind of task, and the pieces that it declares one by one, so the plan
follows the code. Steps of training are timed at two sizes of batch and the search on two samples; the rest is
proportional to the rows.

Shape letters: N rows, S sampled rows, D features, B rows of a batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import torch
from threadpoolctl import threadpool_limits

from distspectral.config.run import RunConfig
from distspectral.costs.rates import Rates, SearchRate, StepRate
from distspectral.costs.search import merge_us, route_us, solve_us
from distspectral.errors import ConfigError
from distspectral.graph.config import GraphConfig
from distspectral.graph.distances import under_metric
from distspectral.graph.search.exact import exact_solver
from distspectral.graph.search.through_cells import search_cells
from distspectral.mapping import local_map
from distspectral.orchestration.pipeline import Pipeline
from distspectral.planning.sample import PROBE_BYTES, WINDOW, brief_config, copy_sample, disk_rates, read_us
from distspectral.planning.stopwatch import ALONE, Stopwatch
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import SOURCE
from distspectral.storage.rows.vectors import ArrayVectors, MappedVectors, Vectors
from distspectral.storage.source.dataset import Source

LOG = logging.getLogger("distspectral")
LEAST_BATCH = 256
PAIR_QUERIES = 256
"""Rows that are searched for exactly to time a pair."""


def measure(config: RunConfig, source: Source, folder: str, probe_bytes: int = PROBE_BYTES) -> Rates:
    """Return the rates of this machine, in one thread.

    Args:
        config: the run.
        source: its opened data.
        folder: on the disk that is to be timed; what is written there is deleted again.
        probe_bytes: written and read back to time the disk.

    Raises:
        ConfigError: the network is a module of the user's own, of unknown cost.
        DistSpectralError: a stage cannot run on the sample.
    """
    recipe = config.recipe(source.dim)
    if recipe.trainings.keys() - recipe.layers.keys():
        raise ConfigError(
            f"network.trunk: is {config.network.trunk}, whose cost at other sizes cannot be told; plan with "
            "network.hidden, or run a part of the rows",
            ["network.trunk", "network.hidden"],
        )
    began = time.perf_counter()
    base = float(psutil.Process().memory_info().rss)
    with _one_quiet_thread(), tempfile.TemporaryDirectory(prefix="distspectral-plan-", dir=folder) as scratch:
        found = _Measurement(config, source, scratch).rates()
        write, read = disk_rates(scratch, probe_bytes)
    seconds = time.perf_counter() - began
    return Rates(**found, base_bytes=base, disk_write=write, disk_read=read, seconds=seconds)


@contextlib.contextmanager
def _one_quiet_thread() -> Iterator[None]:
    """Keep to one thread, and warnings to errors: what a sample's graph looks like is no news."""
    n_threads, level = torch.get_num_threads(), LOG.level
    torch.set_num_threads(1)
    LOG.setLevel(logging.ERROR)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(n_threads)
        LOG.setLevel(level)


class _Measurement:
    """One sample and what is measured on it."""

    def __init__(self, config: RunConfig, source: Source, scratch: str) -> None:
        self.source, self.scratch = source, scratch
        self.source_us, n_rows = copy_sample(source, f"{scratch}/data")
        self.config = brief_config(config, n_rows, scratch, source)
        self.sample = Source.open(self.config.data)
        self.n_rows = self.sample.n_rows
        self.watch = Stopwatch()
        self.pipeline = Pipeline(self.config, self.sample, self.watch, self.watch)
        self.recipe, self.chain = self.pipeline.recipe, self.pipeline.chain

    def rates(self) -> dict[str, Any]:
        for name in self.chain.stages:
            self.pipeline.stage(name)
        reread_us = read_us(self.sample, self.n_rows)[0]
        kept = {name: self.chain.artifact(name).manifest() for name in self.chain.stages}
        return {
            "dim": self.source.dim,
            "sample_rows": self.n_rows,
            "source_bytes": self.source.n_bytes / self.source.n_rows,
            "read_us": self.source_us,
            "core_us": {name: self._core_us(name, reread_us) for name in self.chain.stages},
            "alone_s": {name: self.watch.spent[name, ALONE] for name in self.chain.stages},
            "steps": {name: self._step_rate(name) for name in self.recipe.trainings},
            "searches": {name: self._search_rate(name, rows) for name, rows in self.recipe.searches.items()},
            # what has no shards has no bytes that grow
            "kept_bytes": {name: sum(one.n_bytes for one in kept[name].shards) / self.n_rows for name in kept},
            "row_numbers": {name: one.properties["k"] for name, one in kept.items() if "k" in one.properties},
        }

    def _core_us(self, stage: str, reread_us: float) -> dict[str, float]:
        """Return microseconds of a row by kind of task, reading the sample left out, and by piece."""
        declared = self.chain.stages[stage]
        reads = reread_us if SOURCE in declared.inputs(self.recipe) else 0.0
        tasks = {kind: spent for kind, spent in self.watch.kinds(stage).items() if kind != ALONE}
        found = {kind: max(spent * 1e6 / self.n_rows - reads, 0.0) for kind, spent in tasks.items()}
        for name, piece in declared.pieces(self.pipeline.work(stage)).items():
            found[name] = _core_seconds(piece.run) * 1e6 / piece.n_rows
        return found

    def _search_rate(self, stage: str, searched: str) -> SearchRate:
        """Return what the search took beside what the cost model says, on the sample and on a quarter of it."""
        rows, facts = MappedVectors(self.chain.artifact(searched)), self.chain.artifact(stage).manifest().metrics
        cells, copies, solver = facts.get("cells", 1), facts.get("copies", 1.0), facts.get("solver", "exact")
        dim, n_rows, spent = rows.dim, self.n_rows, self.watch.spent
        config = self.config.graph.model_copy(update={"metric": facts["metric"]})

        def us(description: str) -> float:
            return spent[stage, description] * 1e6 / n_rows

        wider = 0.0
        if "cells" in facts:
            quarter = ArrayVectors(rows.gather(np.arange(0, n_rows, 4)))
            fewer = search_cells(quarter, Artifact(f"{self.scratch}/quarter-{stage}"), {}, config, local_map)
            wider = (copies - fewer.metrics["copies"]) / float(np.log10(n_rows / quarter.n_rows))
        return SearchRate(
            dim=dim,
            truth_us=us("exact neighbours of a sample"),
            route=us("routing rows to cells") / route_us(cells, dim, copies) if cells > 1 else 1.0,
            solve=us("searching cells") / solve_us(solver, n_rows / cells, n_rows, dim, copies),
            merge=us("merging neighbours") / merge_us(dim, copies),
            pair_us=self._pair_us(rows, config),
            copies=copies,
            copies_per_decade=max(wider, 0.0),
            cells=cells,
            solver=solver,
        )

    def _pair_us(self, rows: Vectors, config: GraphConfig) -> float:
        vectors = under_metric(rows, config.metric)
        n_queries = min(PAIR_QUERIES, self.n_rows)
        solver = exact_solver(vectors, config)
        return _core_seconds(lambda: solver(vectors, 0, n_queries)) * 1e6 / n_queries / self.n_rows

    def _step_rate(self, stage: str) -> StepRate:
        """Return a line through the steps of the config's batch and of a smaller one."""
        work, name = self.pipeline.work(stage), f"smaller-{stage}"
        settings = work.training_of(stage)
        batch, seconds = settings.train.batch_size, _step_seconds(self.watch.windows[stage])
        few = max(batch // 4, min(batch, LEAST_BATCH))
        if few == batch or not settings.divisible:
            return StepRate(fixed_s=0.0, row_s=seconds / batch)
        smaller = settings.model_copy(update={"train": settings.train.model_copy(update={"batch_size": few})})
        output = dataclasses.replace(work.output, artifact=Artifact(f"{self.scratch}/{name}"))
        self.watch.started(name)
        work.train(*work.learned_from(stage), output, smaller)
        row_s = max(seconds - _step_seconds(self.watch.windows[name]), 0.0) / (batch - few)
        return StepRate(fixed_s=max(seconds - row_s * batch, 0.0), row_s=row_s)


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
