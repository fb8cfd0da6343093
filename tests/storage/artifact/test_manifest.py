from __future__ import annotations

from distspectral.storage.artifact.manifest import Manifest, Shard, fingerprint, first_rows


def test_fingerprint_follows_stage_config_and_inputs_but_not_key_order() -> None:
    base = fingerprint("stage", {"a": 1, "b": 2}, {"x": "1"})
    assert fingerprint("stage", {"b": 2, "a": 1}, {"x": "1"}) == base
    assert fingerprint("other", {"a": 1, "b": 2}, {"x": "1"}) != base
    assert fingerprint("stage", {"a": 1, "b": 3}, {"x": "1"}) != base
    assert fingerprint("stage", {"a": 1, "b": 2}, {"x": "2"}) != base


def test_a_shards_first_row_is_how_many_rows_lie_before_it() -> None:
    shards = [Shard(name=f"part-{index}", n_rows=n_rows, n_bytes=0) for index, n_rows in enumerate((3, 0, 2))]
    assert first_rows(shards) == [0, 3, 3, 5]
    assert first_rows([]) == [0]
    manifest = Manifest(stage="stage", fingerprint="print", shards=shards)
    assert manifest.shards_and_first_rows == list(zip(shards, (0, 3, 3), strict=True))
