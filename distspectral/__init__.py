"""Spectral embedding and clustering for datasets that do not fit.

``SpectralNet`` and ``DSCL`` are the in-memory estimators with scikit-learn's interface; they never import Ray.
The same modules run on a cluster through the command ``distspectral run``, whose result ``Run`` opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distspectral.estimators.dscl import DSCL
    from distspectral.estimators.spectral_net import SpectralNet
    from distspectral.serving.run import Run

__all__ = ["DSCL", "Run", "SpectralNet", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a class only when asked for, so that the maths alone stays light."""
    if name == "SpectralNet":
        from distspectral.estimators.spectral_net import SpectralNet

        return SpectralNet
    if name == "DSCL":
        from distspectral.estimators.dscl import DSCL

        return DSCL
    if name == "Run":
        from distspectral.serving.run import Run

        return Run
    raise AttributeError(f"module 'distspectral' has no attribute {name!r}")
