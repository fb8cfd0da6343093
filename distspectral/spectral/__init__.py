"""The mathematics on tensors: local sums in, global sums consumed. Imports torch, NumPy and SciPy only."""

from __future__ import annotations

from distspectral.spectral.class_softmax import ClassSoftmaxLoss
from distspectral.spectral.dscl import DSCLLoss

__all__ = ["ClassSoftmaxLoss", "DSCLLoss"]
