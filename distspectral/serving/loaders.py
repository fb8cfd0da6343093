"""The programs that go with an exported model: each embeds rows with one runtime and without distspectral.

Where rows have to come in float64, the file that is written says that instead of float32.
"""

from __future__ import annotations

TORCH = '''\
"""Embeds rows with model.pt2; needs nothing but torch."""

import json
from pathlib import Path

import torch

folder = Path(__file__).parent
model = torch.export.load(folder / "model.pt2").module()
names = [output["name"] for output in json.loads((folder / "model_card.json").read_text())["outputs"]]


def embed(rows):  # (rows, features) -> {"embedding": ..., "cluster": ..., "distance": ..., ...}
    with torch.inference_mode():
        return dict(zip(names, model(torch.as_tensor(rows, dtype=torch.float32))))
'''

ONNX = '''\
"""Embeds rows with model.onnx; needs nothing but onnxruntime and its numpy."""

from pathlib import Path

import numpy
import onnxruntime

path = Path(__file__).with_name("model.onnx")
session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
names = [output.name for output in session.get_outputs()]


def embed(rows):  # (rows, features) -> {"embedding": ..., "cluster": ..., "distance": ..., ...}
    return dict(zip(names, session.run(names, {"vectors": numpy.asarray(rows, numpy.float32)})))
'''
