from __future__ import annotations

import pytest

from distspectral.bench.embed import compare_embedding, write_random
from distspectral.errors import DistSpectralError
from distspectral.stages.embed import EmbedConfig
from distspectral.storage.source.dataset import Source, SourceConfig


def test_the_stage_is_measured_beside_the_bare_loop_in_the_promised_form(tmp_path):
    result = compare_embedding(700, 6, EmbedConfig(batch_rows=128), threads=1, rounds=1, folder=str(tmp_path))
    assert (result["rows"], result["dim"], result["batch_rows"]) == (700, 6, 128)
    assert result["ratio_to_bare"] == pytest.approx(result["rows_per_second"] / result["bare_rows_per_second"])
    assert result["peak_rss_bytes"] > 50 << 20
    assert 0 < result["write_share"] < 1
    assert result["machine"]["cores"] >= 1
    assert result["output_bytes_per_row"] > 20


def test_random_rows_are_kept_and_do_not_depend_on_their_number(tmp_path):
    few, many = (
        Source.open(SourceConfig(path=write_random(str(tmp_path / name), n, 3, rows_per_shard=8)))
        for name, n in (("a", 8), ("b", 20))
    )
    assert [shard.n_rows for shard in many.shards] == [8, 8, 4]
    first, same = (next(source.read_blocks(source.shards[0])).vectors for source in (few, many))
    assert (first == same).all()
    before = many.fingerprint()
    write_random(str(tmp_path / "b"), 20, 3, rows_per_shard=8)
    assert Source.open(many.config).fingerprint() == before


def test_a_loop_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("distspectral.bench.embed.sys.executable", "/bin/false")
    with pytest.raises(DistSpectralError, match="bench embed: bare ended with 1"):
        compare_embedding(10, 2, EmbedConfig(), threads=1, rounds=1, folder=str(tmp_path))
