"""Vectors through a network to new vectors, as a pool of workers does it: little is loaded, nothing waits in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distspectral.embedding.encode import encode
from distspectral.errors import CollapsedError
from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.packed import PackedWriter
from distspectral.storage.rows.vectors import MappedVectors
from tests.datasets import UNEVEN, blobs, packed

VECTORS, LABELS = blobs(100, 6)


class Linear(nn.Module):
    """Sums of features, each time by what ``during`` does."""

    def __init__(self, weight: Tensor | None = None, during: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).view(6, 2) if weight is None else weight)
        self.during = during

    def forward(self, x: Tensor) -> Tensor:
        self.during()
        return x @ self.weight


def encoded(
    folder: Path, vectors: Artifact, load: Callable[[], nn.Module] = Linear, fingerprint: str = "print", **more: Any
) -> Artifact:
    output = Output(Artifact(str(folder / "codes")), "codes", fingerprint, {}, {})
    encode((vectors,), output, load, "cpu", **more)
    return output.artifact


@pytest.mark.parametrize("block_rows", [7, 1 << 14])
def test_rows_ids_and_labels_stay_in_their_shards(
    tmp_path: Path, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distspectral.embedding.encode.rows_of_block", lambda dim: block_rows)
    ids = np.random.default_rng(0).permutation(100)
    vectors = packed(tmp_path, VECTORS, ids=ids, labels=LABELS, sizes=UNEVEN)
    artifact = encoded(tmp_path, vectors)
    assert [shard.n_rows for shard in artifact.manifest().shards] == list(UNEVEN)
    codes = MappedVectors(artifact)
    np.testing.assert_allclose(codes.block(0, 100), VECTORS @ np.arange(12.0).reshape(6, 2), rtol=1e-4, atol=1e-3)
    assert codes.ids().to_pylist() == ids.tolist()
    assert codes.labels().to_pylist() == LABELS.tolist()


def test_a_process_loads_a_network_once_and_another_ones_anew(tmp_path: Path) -> None:
    vectors = packed(tmp_path, VECTORS, sizes=UNEVEN)
    loaded: list[float] = []

    def load(factor: float) -> nn.Module:
        loaded.append(factor)
        return Linear(weight=factor * torch.ones(6, 2))

    first = encoded(tmp_path, vectors, lambda: load(1.0), "one")
    sums = MappedVectors(first).block(0, 100).copy()
    second = encoded(tmp_path, vectors, lambda: load(2.0), "two")
    assert loaded == [1.0, 2.0]
    np.testing.assert_allclose(MappedVectors(second).block(0, 100), 2 * sums, rtol=1e-6)


def test_rows_are_read_and_written_while_the_network_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network waits for a block that comes after, and for the one before to be written: in turn it would hang."""
    vectors = packed(tmp_path, VECTORS)
    read, written = threading.Semaphore(0), threading.Semaphore(0)
    block, append = MappedVectors.block, PackedWriter.append

    def noted_block(self: MappedVectors, start: int, stop: int) -> Any:
        found = block(self, start, stop)
        read.release()
        return found

    def noted_append(self: PackedWriter, *arguments: Any) -> None:
        append(self, *arguments)
        written.release()

    monkeypatch.setattr(MappedVectors, "block", noted_block)
    monkeypatch.setattr("distspectral.embedding.encode.rows_of_block", lambda dim: 10)
    monkeypatch.setattr(PackedWriter, "append", noted_append)
    calls: list[bool] = []

    def during() -> None:
        number = len(calls)  # 0 asks for the width, then come blocks 1 to 10
        n_read = {0: 0, 1: 2, 10: 0}.get(number, 1)  # up to the block after this one
        is_read = all(read.acquire(timeout=60) for _ in range(n_read))
        calls.append(is_read and (number < 2 or written.acquire(timeout=60)))

    artifact = encoded(tmp_path, vectors, lambda: Linear(during=during))
    assert calls == [True] * 11
    assert all(seconds > 0 for seconds in artifact.manifest().metrics["busy_seconds"].values())


def test_encoding_asks_for_an_accelerator(tmp_path: Path) -> None:
    asked: list[bool] = []

    def mapper(
        function: Callable[[Any], Any], items: Sequence[Any], description: str, *, on_gpu: bool = False
    ) -> Iterator[Any]:
        asked.append(on_gpu)
        return local_map(function, items, description)

    encoded(tmp_path, packed(tmp_path, VECTORS), mapper=mapper)
    assert asked == [True]


def test_equal_outputs_are_refused(tmp_path: Path) -> None:
    vectors = packed(tmp_path, VECTORS)
    with pytest.raises(CollapsedError, match="maps all 100 rows to one point"):
        encoded(tmp_path, vectors, lambda: Linear(weight=torch.zeros(6, 2)))
