from __future__ import annotations

import itertools

import pytest

from distspectral.graph.config import GraphConfig
from distspectral.graph.search.cuts import GROUPS, MIN_BLOCK_ROWS, block_cuts, merge_runs, read_runs


def rows_of(run):
    return run[-1][1] - run[0][0]


@pytest.mark.parametrize("n_rows", [5, 50_000, 3_000_000, 10**9])
@pytest.mark.parametrize("config", [GraphConfig(), GraphConfig(task_memory="64MiB", n_neighbors=100)])
def test_runs_are_whole_blocks_that_leave_out_no_row(n_rows, config):
    blocks = block_cuts(n_rows, 96, config)
    assert (blocks[0][0], blocks[-1][1]) == (0, n_rows)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(blocks))
    for runs in (read_runs(blocks, 96, config), merge_runs(blocks, config)):
        assert list(itertools.chain(*runs)) == blocks
        assert len(runs) >= min(GROUPS, n_rows // MIN_BLOCK_ROWS)


@pytest.mark.parametrize(("dim", "most_files"), [(96, 900), (768, 7000)])
def test_files_are_as_few_as_a_task_s_memory_allows(dim, most_files):
    config = GraphConfig()
    runs = read_runs(block_cuts(10**9, dim, config), dim, config)
    assert len(runs) <= most_files
    assert max(map(rows_of, runs)) * 4 * dim <= config.task_memory / 2
    twice = config.model_copy(update={"task_memory": 2 * config.task_memory})
    assert len(read_runs(block_cuts(10**9, dim, twice), dim, twice)) <= 0.6 * len(runs)


def test_a_task_has_the_rows_that_the_config_says():
    config = GraphConfig(block_rows=1000)
    blocks = block_cuts(1_000_000, 8, config)
    assert {rows_of(run) for run in (*read_runs(blocks, 8, config), *merge_runs(blocks, config))} == {1000}
