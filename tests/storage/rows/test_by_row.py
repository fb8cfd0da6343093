from __future__ import annotations

import numpy as np
import pytest

from distspectral.mapping import local_map
from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.artifact.output import Output
from distspectral.storage.rows.by_row import ByRow, load_rows, read_parts, write_part


def opened(folder) -> ByRow:
    output = Output(Artifact(str(folder)), "stage", "print", {}, {})
    output.begin()
    return ByRow(output)


def write(item):
    name, artifact, values = item
    return write_part(artifact, name, values)


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int64])
def test_parts_are_joined_in_row_order(tmp_path, dtype):
    rows, values = opened(tmp_path), np.arange(10).astype(dtype)
    items = [(f"part-{index}.arrow", rows.artifact, part) for index, part in enumerate(np.split(values, [3, 4]))]

    def backwards(function, items, description, *, on_gpu=False):
        return local_map(function, items[::-1], description)

    parts = rows.run(write, items, backwards, "writing")
    assert [part.tolist() for part in read_parts(rows.artifact, parts)] == [[0, 1, 2], [3], [4, 5, 6, 7, 8, 9]]
    rows.join("all.npy", parts, local_map, "joining")
    found = rows.artifact.load_array("all.npy")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)
    assert load_rows(rows.artifact, "all.npy", np.array([9, 0])).tolist() == [9, 0]
    rows.join("twice.npy", parts, local_map, "joining", change=lambda artifact, parts: lambda part: 2 * part)
    np.testing.assert_array_equal(rows.artifact.load_array("twice.npy"), 2 * values)


def test_what_stands_is_not_written_again_and_all_is_gone_at_the_end(tmp_path):
    def refuse(function, items, description):
        raise AssertionError(description)

    items = [("part.arrow", opened(tmp_path).artifact, np.arange(3))]
    parts = opened(tmp_path).run(write, items, local_map, "writing")
    opened(tmp_path).join("all.npy", parts, local_map, "joining")
    rows = opened(tmp_path)
    rows.join("all.npy", rows.run(write, items, refuse, "writing"), refuse, "joining")
    rows.artifact.delete()
    assert not rows.artifact.exists()
    rows.artifact.delete()
