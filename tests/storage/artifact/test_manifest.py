from __future__ import annotations

from distspectral.storage.artifact.manifest import fingerprint


def test_fingerprint_follows_stage_config_and_inputs_but_not_key_order() -> None:
    base = fingerprint("stage", {"a": 1, "b": 2}, {"x": "1"})
    assert fingerprint("stage", {"b": 2, "a": 1}, {"x": "1"}) == base
    assert fingerprint("other", {"a": 1, "b": 2}, {"x": "1"}) != base
    assert fingerprint("stage", {"a": 1, "b": 3}, {"x": "1"}) != base
    assert fingerprint("stage", {"a": 1, "b": 2}, {"x": "2"}) != base
