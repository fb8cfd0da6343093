from __future__ import annotations

import numpy as np

from distspectral.storage.artifact.directory import Artifact
from distspectral.storage.rows.arrays import ArraysReader, write_arrays


def test_batches_come_back_one_by_one_with_the_metadata(tmp_path):
    artifact = Artifact(str(tmp_path))
    rng = np.random.default_rng(0)
    batches = [{"row": np.arange(n), "vector": rng.standard_normal((n, 3)).astype(np.float16)} for n in (4, 1, 7)]
    shard = write_arrays(artifact, "a.arrow", iter(batches), {"kept": 1}, {"counts": np.array([4, 0, 1, 7])})
    assert (shard.n_rows, shard.details) == (12, {"kept": 1})
    assert shard.n_bytes == (tmp_path / "a.arrow").stat().st_size
    reader = ArraysReader(artifact, "a.arrow")
    assert reader.n_batches == 3
    assert reader.metadata("counts").tolist() == [4, 0, 1, 7]
    for index, batch in enumerate(batches):
        for key, column in reader.batch(index).items():
            np.testing.assert_array_equal(column, batch[key])
            assert column.dtype == batch[key].dtype
