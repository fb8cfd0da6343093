from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from distspectral.comm import collectives
from distspectral.graph.search import exact
from distspectral.graph.store import MappedGraph
from distspectral.mapping import local_map
from distspectral.models.state import read_state
from distspectral.stages.train import train
from distspectral.storage.rows.joined import open_vectors
from distspectral.training import drawing as stage
from distspectral.training import last_layer, loop
from distspectral.training.drawing import BATCHES, draw, wants_batches
from distspectral.training.drawn import DrawnVectors
from distspectral.training.growth import N_JUDGED
from tests.runs import LEARNED
from tests.stages.chain import pipeline_upto

STAGES = ("autoencoder", "siamese", "train", "distill", "map")


class Killed(BaseException):
    """Stands for the end of the process."""


def trained_once(pipeline):
    """Return a copy of the training as the chain left it."""
    return Path(pipeline.chain.root.path, "trained-once")


class Trial:
    """A training of a finished chain, by batches that were drawn or not."""

    def __init__(self, pipeline, name):
        work = pipeline.work(name)
        self.vectors, self.graph = work.learned_from(name)
        self.output, self.settings = pipeline.chain.outputs[name], work.training_of(name)
        if name == "distill":  # upon the training, which others here begin anew
            self.settings = self.settings.model_copy(update={"trained": str(trained_once(pipeline))})
        self.artifact = self.output.artifact

    @property
    def rows(self):
        return open_vectors(self.vectors)

    def draw(self, mapper=local_map):
        return draw(self.vectors, self.graph, self.output, self.settings.draws(self.rows.n_rows), mapper)

    def sampler(self, drawn=True):
        """Return the sampler of batches drawn before, or the one that reads all rows."""
        rows = DrawnVectors(self.rows, self.artifact.child(BATCHES)) if drawn else self.rows
        return self.settings.trainer(rows, self.graph and MappedGraph(self.graph)).sampler

    def weights(self, drawn):
        """Train and return what was learned."""
        if drawn:
            self.draw()
        train(self.vectors, self.graph, self.output, self.settings)
        return read_state(self.artifact, "model.pt")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """All that the trainings learn from, small shards among it."""
    folder = tmp_path_factory.mktemp("draw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "MIN_TASK_ROWS", 32)
        found = pipeline_upto(folder, "calibrate", sizes=(50, 1, 30, 39), **LEARNED)
    shutil.copytree(found.chain.artifact("train").path, trained_once(found))
    assert [len(found.chain.artifact(name).manifest().shards) for name in ("pack", "reweight")] == [4, 4]
    return found


@pytest.fixture(params=STAGES)
def trial(pipeline, request):
    found = Trial(pipeline, request.param)
    found.artifact.delete()
    return found


def on_ranks(monkeypatch, world_size, make):
    """Return what ``make`` returns on each rank of a group."""
    found = []
    monkeypatch.setattr(loop, "parallelize", lambda network: network)
    monkeypatch.setattr(collectives, "world_size", lambda: world_size)
    monkeypatch.setattr(collectives, "all_reduce_sum", lambda sums: sums)
    for rank in range(world_size):
        monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
        found.append(make())
    return found


def pairs_of(batch):
    """Return both ends' vectors of a batch's edges or pairs, side by side."""
    return np.hstack([batch.vectors[batch.heads].numpy(), batch.vectors[batch.tails].numpy()])


def in_order(rows):
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("name", ["autoencoder", "train", "distill", "map"])
def test_batches_are_those_of_one_rank_that_reads_everything(pipeline, name):
    trial = Trial(pipeline, name)
    trial.artifact.delete()
    trial.draw()
    drawn, mapped = trial.sampler(), trial.sampler(drawn=False)
    n_steps = trial.settings.train.steps(trial.rows.n_rows)
    for step in (0, 3, n_steps, n_steps + N_JUDGED - 1):
        ours, theirs = drawn.batch(step), mapped.batch(step)
        for field, value in vars(theirs).items():
            assert torch.equal(getattr(ours, field), value), (step, field)


def test_pairs_are_those_of_a_rank_that_reads_everything_but_for_one_sided_neighbors(pipeline):
    trial = Trial(pipeline, "siamese")
    trial.artifact.delete()
    trial.draw()
    drawn, mapped = trial.sampler(), trial.sampler(drawn=False)
    n_more = 0
    for step in range(20):
        ours, theirs = drawn.batch(step), mapped.batch(step)
        near = [pairs_of(batch)[batch.is_neighbor.numpy()] for batch in (ours, theirs)]
        np.testing.assert_array_equal(in_order(near[0]), in_order(near[1]))
        far = [pairs_of(batch)[~batch.is_neighbor.numpy()] for batch in (ours, theirs)]
        assert {tuple(row) for row in far[1]} <= {tuple(row) for row in far[0]}
        n_more += len(far[0]) - len(far[1])
    n_far = 20 * trial.settings.train.batch_size // 2
    assert 0 < n_more < 0.08 * n_far, "a row is listed by one in fifteen others, some of which it lists itself"


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_a_batch(trial, world_size, monkeypatch):
    trial.draw()
    alone = trial.sampler().batch(1)
    parts = [sampler.batch(1) for sampler in on_ranks(monkeypatch, world_size, trial.sampler)]
    if not hasattr(alone, "heads"):
        assert torch.equal(torch.cat([part.vectors for part in parts]), alone.vectors)
        return
    together = np.concatenate([pairs_of(part) for part in parts])
    np.testing.assert_array_equal(in_order(together), in_order(pairs_of(alone)))
    for name in {"weights", "mass"} & set(vars(alone)):
        assert sum(float(getattr(part, name).sum()) for part in parts) == pytest.approx(1)
    if hasattr(alone, "negatives"):
        for part in parts:
            assert torch.equal(part.vectors[part.negatives], alone.vectors[alone.negatives])


def test_a_batch_that_has_grown_takes_in_others_of_the_training(pipeline):
    trial = Trial(pipeline, "train")
    trial.artifact.delete()
    trial.draw()
    sampler = trial.sampler()
    n_steps = trial.settings.train.max_steps
    whole = np.concatenate([pairs_of(sampler.batch(step)) for step in (30, (30 + n_steps // 2) % n_steps)])
    sampler.growth = 2
    grown = sampler.batch(30)
    assert len(grown.weights) == 2 * trial.settings.train.batch_size
    assert float(grown.weights.sum()) == pytest.approx(1)
    assert float(grown.mass.sum()) == pytest.approx(1)
    n_rows = int(torch.cat([grown.heads, grown.tails]).max()) + 1
    assert len(torch.unique(grown.vectors, dim=0)) == n_rows, "each row once"
    np.testing.assert_array_equal(in_order(pairs_of(grown)), in_order(whole))


@pytest.mark.parametrize("name", ["autoencoder", "train", "distill"])
def test_what_is_learned_is_the_same_and_the_batches_are_gone(pipeline, name, monkeypatch):
    monkeypatch.setattr(last_layer, "FEW_ROWS", 0)  # batches that grow take edges in that no other part has drawn
    trial = Trial(pipeline, name)
    found = []
    for drawn in (False, True):
        trial.artifact.delete()
        found.append(trial.weights(drawn))
    assert not trial.artifact.child(BATCHES).exists()
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, msg=key)


@pytest.mark.parametrize("last", ["weighing shards", "drawing batches", "gathering rows", "merging batches"])
def test_an_interrupted_drawing_goes_on_with_what_it_lacks(pipeline, last, monkeypatch):
    trial = Trial(pipeline, "train")
    trial.artifact.delete()
    monkeypatch.setattr(stage, "CHUNK_BYTES", 1 << 13)
    whole = trial.draw()
    assert len(whole.shards) > 3
    expected = [trial.artifact.child(BATCHES).read_bytes(shard.name) for shard in whole.shards]
    trial.artifact.delete()
    worked: list[tuple[str, int]] = []

    def dying(function, items, description, *, on_gpu=False):
        for number, item in enumerate(items):
            if (description, number) == (last, 1):
                raise Killed
            yield function(item)

    def counting(function, items, description, *, on_gpu=False):
        worked.append((description, len(items)))
        return local_map(function, items, description)

    with pytest.raises(Killed):
        trial.draw(dying)
    again = trial.draw(counting)
    assert [trial.artifact.child(BATCHES).read_bytes(shard.name) for shard in again.shards] == expected
    if last == "merging batches":
        assert dict(worked)["merging batches"] == len(expected) - 1
        assert "gathering rows" not in dict(worked)
    worked.clear()
    trial.draw(counting)
    assert not worked, "what is whole is not drawn again"


def test_a_training_that_was_interrupted_goes_on_with_its_batches(pipeline, monkeypatch):
    trial = Trial(pipeline, "train")
    trial.artifact.delete()
    trial.draw()

    def die(record):
        raise Killed

    with pytest.raises(Killed):
        train(trial.vectors, trial.graph, trial.output, trial.settings, die)
    trial.draw()
    monkeypatch.setattr(MappedGraph, "gather", None)  # the graph is not read any more
    assert train(trial.vectors, trial.graph, trial.output, trial.settings).metrics["steps"] == 40


def test_batches_are_drawn_where_that_is_less_to_read(pipeline, monkeypatch):
    trial = Trial(pipeline, "train")

    def wanted(**settings):
        chosen = trial.settings.model_copy(update={"train": trial.settings.train.model_copy(update=settings)})
        return wants_batches(chosen, trial.vectors, trial.graph) is not None

    assert [wanted(batches=batches) for batches in ("auto", "mapped", "drawn")] == [False, False, True]
    monkeypatch.setattr(stage, "bytes_drawn", lambda *_: 1)
    assert [wanted(batches=batches) for batches in ("auto", "mapped", "drawn")] == [True, False, True]


def test_an_objective_without_draws_maps(pipeline):
    trial = Trial(pipeline, "train")
    spectral = trial.settings.spectral.model_copy(update={"laplacian": "unnormalized"})
    train_config = trial.settings.train.model_copy(update={"batches": "drawn"})
    settings = trial.settings.model_copy(update={"spectral": spectral, "train": train_config})
    assert wants_batches(settings, trial.vectors, trial.graph) is None
