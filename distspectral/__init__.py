"""Spectral embedding and clustering for datasets that do not fit.

``SpectralNet`` is the in-memory estimator with scikit-learn's interface; it never imports Ray.
The same modules run on a cluster through the command ``distspectral run``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distspectral.estimator import SpectralNet

__all__ = ["SpectralNet", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the estimator only when asked for, so that the maths alone stays light."""
    if name == "SpectralNet":
        from distspectral.estimator import SpectralNet

        return SpectralNet
    raise AttributeError(f"module 'distspectral' has no attribute {name!r}")
