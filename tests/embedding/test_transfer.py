from __future__ import annotations

import itertools
import warnings
from collections import deque

import numpy as np
import pytest
import torch

from distspectral.embedding.transfer import Transfer, as_tensor
from tests.embedding.cuda import Cuda

GPU = torch.device("cuda")
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_a_read_only_array_becomes_a_tensor_of_the_same_memory():
    rows = ROWS.copy()
    rows.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(rows)
    assert tensor.data_ptr() == rows.ctypes.data
    assert torch.equal(tensor, torch.from_numpy(ROWS))


def test_a_cpu_takes_batches_and_gives_results_without_copying():
    transfer = Transfer(torch.device("cpu"))
    assert transfer.send(ROWS).data_ptr() == ROWS.ctypes.data
    result = torch.ones(3)
    assert transfer.fetch({"a": result})()["a"].ctypes.data == result.data_ptr()


def test_another_device_is_sent_to_through_two_buffers_in_turn():
    cuda, buffers = Cuda(), []

    def buffer(rows, dim):
        buffers.append(cuda.buffer(rows, dim))
        return buffers[-1]

    transfer = Transfer(GPU, buffer, cuda)
    for value in range(5):
        transfer.send(np.full((4, 3), value, np.float32))
    assert [float(one.array[0, 0]) for one in buffers] == [4.0, 3.0]  # 0, 2, 4 by the first, 1, 3 by the second


def test_a_short_batch_uses_part_of_a_buffer_and_a_longer_one_gets_a_new_one():
    cuda, sizes = Cuda(), []

    def buffer(rows, dim):
        sizes.append(rows)
        return cuda.buffer(rows, dim)

    transfer = Transfer(GPU, buffer, cuda)
    for rows in (4, 4, 2, 3, 9):
        assert transfer.send(np.ones((rows, 3), np.float32)).array.shape == (rows, 3)
    assert sizes == [4, 4, 9]


ALL = ("computing", "there", "back")


@pytest.mark.parametrize("eager", [who for n in range(4) for who in itertools.combinations(ALL, n)], ids="-".join)
def test_results_are_right_whichever_stream_runs_ahead(eager):
    cuda = Cuda(eager)
    transfer = Transfer(GPU, cuda.buffer, cuda)
    waiting, found = deque(), []
    for value in range(12):
        rows = np.full((4 if value != 7 else 6, 3), value, np.float32)
        waiting.append(transfer.fetch({"twice": cuda.doubled(transfer.send(rows))}))
        rows[...] = np.nan  # the reader may use its memory again
        if len(waiting) > 3:
            found.append(waiting.popleft()())
    found += [wait() for wait in waiting]
    assert [sorted(set(one["twice"].ravel())) for one in found] == [[2.0 * value] for value in range(12)]
    assert len(found[7]["twice"]) == 6


def test_batches_are_on_their_way_while_earlier_ones_are_computed():
    cuda = Cuda()
    transfer = Transfer(GPU, cuda.buffer, cuda)
    results = [cuda.doubled(transfer.send(ROWS)) for _ in range(4)]
    assert cuda.n_kernels == 0, "two copies have been waited for, which no kernel has"
    transfer.fetch({"twice": results[0]})()
    assert cuda.n_kernels == 4


def test_memory_of_batches_is_used_again_once_they_are_computed():
    cuda = Cuda(ALL)
    transfer = Transfer(GPU, cuda.buffer, cuda)
    places = {transfer.send(ROWS).array.ctypes.data for _ in range(9)}
    assert len(places) <= 2
