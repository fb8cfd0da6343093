"""Orthonormal outputs from a Gram matrix: its Cholesky factor and its moving average.

Always average Grams, never factors: the mean of two Cholesky factors is not the factor of the mean.

Shape letters: B rows, E functions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distspectral.errors import RankDeficientError
from distspectral.spectral.checks import Check, raise_first


def cholesky_factor(gram: Tensor, *, jitter: float = 1e-9) -> Tensor:
    """Return the factor of :func:`checked_cholesky`, its check made.

    Raises:
        RankDeficientError: not positive definite after jitter; names the first dependent function.

    Communication: none. Gradient: none. Host reads: one.
    """
    factor, check = checked_cholesky(gram, jitter=jitter)
    raise_first([check])
    return factor


def checked_cholesky(gram: Tensor, *, jitter: float = 1e-9) -> tuple[Tensor, Check]:
    """Return the lower-triangular R with R R' = G + jitter mean(diag G) I, and the check that there is one.

    Args:
        gram: (E, E) symmetric, already summed over ranks; computed with in float64.
        jitter: diagonal loading, as a fraction of mean(diag(gram)).

    Returns:
        (E, E) float64, meaningless where the check fails; its RankDeficientError names the first dependent function.

    Communication: none. Gradient: none. Host reads: none.
    """
    gram = gram.detach().double()
    loading = jitter * gram.diagonal().mean()
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(gram + loading * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    n_functions = len(gram)

    def error(position: int) -> RankDeficientError:
        reason = f"function {position} depends on those before it" if position > 0 else "its factor is not finite"
        return RankDeficientError(
            f"the Gram matrix of {n_functions} functions is not positive definite: {reason} (jitter {jitter:g}); "
            "use a larger batch, fewer functions, or a wider last hidden layer"
        )

    return factor, Check(torch.where(torch.isfinite(factor).all(), info, info.clamp(min=1).neg()), error)


def whiten(f: Tensor, factor: Tensor) -> Tensor:
    """Return f R^-T, whose rows have Gram matrix I when ``factor`` is that of f's Gram.

    Args:
        f: (B, E) functions.
        factor: (E, E) lower-triangular Cholesky factor R.

    Returns:
        (B, E) in the dtype of ``f``. Gradient: flows to ``f``, not to ``factor``.

    Reference: Shaham et al., SpectralNet, ICLR 2018, section 3.2.
    """
    whitened: Tensor = torch.linalg.solve_triangular(factor.detach().to(f.dtype), f.T, upper=False).T
    return whitened


def moving_average(average: Tensor, value: Tensor, decay: float) -> Tensor:
    """Return decay * average + (1 - decay) * value; start from zeros and divide by :func:`bias`."""
    return decay * average + (1 - decay) * value


def bias(n_updates: Tensor, decay: float) -> Tensor:
    """Return 1 - decay^n, () float64: a moving average begun at zero reaches only this share after n updates."""
    return 1.0 - decay ** n_updates.double()
