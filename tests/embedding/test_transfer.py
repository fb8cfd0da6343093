from __future__ import annotations

import warnings

import numpy as np
import torch

from distspectral.embedding.transfer import Transfer, as_tensor

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


class FakeEvent:
    """Notes what is asked of it, with the content of the buffers at that moment."""

    def __init__(self, log):
        self.log = log
        log.append("made")

    def record(self):
        self.log.append("recorded")

    def synchronize(self):
        self.log.append("waited")


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
    buffers, log = [], []

    def buffer(rows, dim):
        buffers.append(torch.zeros(rows, dim))
        return buffers[-1]

    transfer = Transfer(torch.device("meta"), buffer, lambda: FakeEvent(log))
    for value in range(5):
        moved = transfer.send(np.full((4, 3), value, np.float32))
        assert moved.device.type == "meta"
    assert [float(one[0, 0]) for one in buffers] == [4.0, 3.0]  # 0, 2, 4 through the first, 1, 3 through the second
    assert log == ["made", "waited", "recorded"] * 2 + ["waited", "recorded"] * 3


def test_a_short_batch_uses_part_of_a_buffer_and_a_longer_one_gets_a_new_one():
    sizes = []

    def buffer(rows, dim):
        sizes.append(rows)
        return torch.zeros(rows, dim)

    transfer = Transfer(torch.device("meta"), buffer, lambda: FakeEvent([]))
    for rows in (4, 4, 2, 3, 9):
        assert transfer.send(np.ones((rows, 3), np.float32)).shape == (rows, 3)
    assert sizes == [4, 4, 9]


def test_results_are_handed_out_only_once_they_have_arrived():
    log = []
    wait = Transfer(torch.device("meta"), event=lambda: FakeEvent(log)).fetch({"a": torch.arange(3)})
    assert log == ["made", "recorded"]
    assert wait()["a"].tolist() == [0, 1, 2]
    assert log == ["made", "recorded", "waited"]
