from __future__ import annotations

import pytest
import torch

from distspectral import precision


@pytest.mark.parametrize(("gain", "fast"), [(1.2, False), (4.0, True)])
def test_bfloat16_is_taken_where_it_was_measured_to_be_faster(monkeypatch, gain, fast):
    precision.fast_bfloat16.cache_clear()
    asked = []

    def product_s(dtype):
        asked.append(dtype)
        return 1.0 / gain if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(precision, "_product_s", product_s)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    try:
        assert precision.fast_bfloat16(torch.device("cpu")) is fast
        assert precision.fast_bfloat16(torch.device("cpu")) is fast
        assert len(asked) == 2 * (1 + precision.TRIES), "once per process"
    finally:
        precision.fast_bfloat16.cache_clear()
