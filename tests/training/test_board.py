from __future__ import annotations

import resource
import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from distspectral.training.board import Board


def events(path: Path) -> list[Any]:
    """Return the events of a file, its checksums checked as TensorBoard does."""
    data, found = path.read_bytes(), []
    while data:
        (length, checksum), end = struct.unpack("<QI", data[:12]), 12
        assert checksum == masked_crc32c(data[:8])
        message, end = data[12 : 12 + length], end + length + 4
        assert struct.unpack("<I", data[end - 4 : end]) == (masked_crc32c(message),)
        found.append(Event.FromString(message))
        data = data[end:]
    return found


def test_the_file_begins_anew_at_the_first_step_and_holds_every_point(tmp_path: Path) -> None:
    board = Board(str(tmp_path / "tensorboard"), 41)
    board.add(50, {"train/loss": 0.5, "ritz/000": 0.25})
    board.add(60, {"train/loss": 0.125})
    assert board.path.name.startswith("events.out.tfevents.")
    version, start, *points = events(board.path)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (41, start.session_log.START)
    found = [(point.step, value.tag, value.simple_value) for point in points for value in point.summary.value]
    assert found == [(50, "train/loss", 0.5), (50, "ritz/000", 0.25), (60, "train/loss", 0.125)]


def test_half_a_record_does_not_hide_those_that_follow(tmp_path: Path) -> None:
    board = Board(str(tmp_path), 0)
    before, limits = board.path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + 20, limits[1]))  # stands for a disk that fills up
    try:
        board.add(1, {"train/loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert board.path.stat().st_size == before
    board.add(2, {"train/loss": 0.25})
    assert [event.step for event in events(board.path)] == [0, 0, 2]


def test_a_place_that_cannot_be_written_costs_points_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").touch()
    Board(str(tmp_path / "tensorboard"), 0).add(1, {"train/loss": 0.5})
    assert "TensorBoard misses some points" in caplog.text
