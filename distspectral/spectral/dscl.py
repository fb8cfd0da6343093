"""Deep Spectral Clustering Learning: the distance between a batch's ideal clustering and the span of its outputs.

With n rows of outputs F (n, E), one-hot classes H (n, C) and class sizes n_c, the ideal affinity is the projector
onto the class indicators, C = H diag(1/n_c) H', and the loss is the part of it that the columns of F do not span:

    l = k - tr(C F F^+)  in [0, k],  k the number of classes that occur,
    dl/dF = -2 (I - F F^+) C (F^+)'.

Neither needs an n x n matrix. With S = F'F and B = H'F, both plain sums over rows,

    l = k - tr(S^+ B' diag(1/n_c) B),     dl/dS = S^+ B' diag(1/n_c) B S^+,     dl/dB = -2 diag(1/n_c) B S^+

so the cost is linear in the rows and quadratic in the width, ranks only add their sums, and a class that spans
ranks counts once. Nothing is differentiated through a factorisation.

The pseudo-inverse is found in one of two ways. Where the inverse from a Cholesky factor proves that every eigenvalue
counts, it is the pseudo-inverse, at a tenth of the cost of eigenvectors, which are the way out where it does not.
Training takes the first for granted, so that nothing has to be read from the device before the step is worked out.

S squares the condition number of F: singular values of F below 1e-7 of the largest count as zero even in float64.

Shape letters: B rows of a batch, E embedding width, C classes.
Reference: Law, Urtasun, Zemel, Deep Spectral Clustering Learning, ICML 2017.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from distspectral.errors import NonFiniteStepError, TooFewClassesError
from distspectral.spectral.checks import Check, finite, raise_first
from distspectral.spectral.rayleigh import gram


def class_sums(f: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Return this rank's sum of its rows by class, B = H'F.

    Args:
        f: (B, E) outputs of the network, any float dtype.
        classes: (B,) int64 in [0, C).
        n_classes: C; a class may have no row here.

    Returns:
        (C, E) float64.

    Communication: none, the caller adds ranks. Gradient: flows to ``f``.
    """
    f = f.double()
    return f.new_zeros(n_classes, f.shape[1]).index_add(0, classes, f)


def class_counts(classes: Tensor, n_classes: int) -> Tensor:
    """Return this rank's number of rows of each class (C,) float64. Communication: none. Gradient: none."""
    ones = torch.ones(len(classes), dtype=torch.float64, device=classes.device)
    return ones.new_zeros(n_classes).index_add(0, classes, ones)  # bincount would read the largest class


def eigenvalue_cutoff(n_rows: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return the eigenvalue of F'F, relative to the largest, below which it is rounding; () float64.

    The usual cut-off of singular values, max(n, E) times the rounding of F's dtype, squared; but never below the
    rounding of the float64 eigenvalues themselves.
    """
    singular = n_rows.double().clamp(min=width) * torch.finfo(dtype).eps
    return singular.square().clamp(min=width * torch.finfo(torch.float64).eps)


def certain_inverse(matrix: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverse from a Cholesky factor, and whether it proves that every eigenvalue counts.

    By Frobenius norms the smallest eigenvalue is at least 1 / |M^-1| and the largest at most |M|.

    Args:
        matrix: (E, E) float64, symmetric positive semi-definite.
        cutoff: (), eigenvalues up to this share of the largest count as zero.

    Returns:
        (E, E) float64, meaningless without the proof, and () bool. Host reads: none.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    inverse = torch.cholesky_solve(identity, factor)  # cholesky_inverse would look at the factor's diagonal
    return inverse, (info == 0) & (1 / inverse.norm() > cutoff * matrix.norm())


def spectral_pseudo_inverse(matrix: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pseudo-inverse of a symmetric positive semi-definite matrix, and its rank.

    Args:
        matrix: (E, E) float64.
        cutoff: (), eigenvalues up to this share of the largest count as zero.

    Returns:
        (E, E) float64 and () int64. Host reads: those of ``eigh``.
    """
    values, vectors = torch.linalg.eigh(matrix)
    kept = (values > cutoff * values[-1]) & (values > 0)
    inverse = (vectors * torch.where(kept, 1 / torch.where(kept, values, 1), 0)) @ vectors.T
    return inverse, kept.sum()


@dataclasses.dataclass(frozen=True)
class Projection:
    """The loss at the current outputs and its exact linear form in (S, B).

    Attributes:
        value: () float64, l.
        is_certain: () bool, whether the columns of F are independent beyond doubt.
        gram_coefficient: (E, E) float64, derivative with respect to S.
        class_coefficient: (C, E) float64, derivative with respect to B; zero for an absent class.
        checks: that the sums are finite and of two classes at least.
    """

    value: Tensor
    is_certain: Tensor
    gram_coefficient: Tensor
    class_coefficient: Tensor
    checks: tuple[Check, ...]

    def surrogate(self, gram: Tensor, class_sums: Tensor) -> Tensor:
        """Return <dS, S_rank> + <dB, B_rank>, whose gradient summed over ranks is the loss's.

        Args:
            gram: (E, E) this rank's differentiable share of S.
            class_sums: (C, E) this rank's differentiable share of B.
        """
        return (self.gram_coefficient * gram).sum() + (self.class_coefficient * class_sums).sum()

    def gradient(self, f: Tensor, classes: Tensor) -> Tensor:
        """Return dl/dF at this rank's rows in closed form, (B, E) in the dtype of ``f``.

        Args:
            f: (B, E) outputs.
            classes: (B,) int64 in [0, C).
        """
        rows = 2 * (f.double() @ self.gram_coefficient) + self.class_coefficient[classes]
        return rows.to(f.dtype)


@torch.no_grad()
def project(
    gram: Tensor, class_sums: Tensor, counts: Tensor, dtype: torch.dtype, *, presume_independent: bool = False
) -> Projection:
    """Return the loss and its derivatives from sums over all ranks.

    Args:
        gram: (E, E) float64 global S.
        class_sums: (C, E) float64 global B.
        counts: (C,) float64 global n_c; 0 for a class that does not occur.
        dtype: of the outputs that were summed; decides which eigenvalues of S are rounding.
        presume_independent: take the columns of F for independent and read nothing from the device. The caller makes
            the checks, and where the result is not certain asks again without it.

    Raises:
        TooFewClassesError: all rows are of one class.
        NonFiniteStepError: the sums hold NaN or infinity; every rank raises, for all see the same sums.

    Communication: none. Gradient: none; see :meth:`Projection.surrogate` and :meth:`Projection.gradient`.
    """
    present = counts > 0
    n_present = present.sum()
    checks = (
        enough_classes(counts),
        finite(NonFiniteStepError("the embedding of the batch holds NaN or infinity"), gram, class_sums),
    )
    cutoff = eigenvalue_cutoff(counts.sum(), len(gram), dtype)
    inverse, is_certain = certain_inverse(gram, cutoff)
    if not presume_independent:
        raise_first(checks)
        if not bool(is_certain):
            inverse, _ = spectral_pseudo_inverse(gram, cutoff)
    projected = class_sums @ inverse
    scaled = torch.where(present, 1 / counts.clamp(min=1), 0)[:, None] * projected
    value = n_present - (scaled * class_sums).sum()
    return Projection(value, is_certain, projected.T @ scaled, -2 * scaled, checks)


def enough_classes(counts: Tensor) -> Check:
    """Return the check that rows are of two classes at least, by the number (C,) of each."""
    n_present = (counts > 0).sum()
    return Check(torch.where(n_present < 2, 1 + n_present, 0), _too_few_classes)


def _too_few_classes(code: int) -> TooFewClassesError:
    return TooFewClassesError(
        f"the batch's rows are of {code - 1} class: with fewer than 2 there is nothing to tell apart; put rows of "
        "more classes into each batch (all workers together)"
    )


class _ClosedForm(torch.autograd.Function):
    """The loss with its closed-form gradient; computed together, for both need the same pseudo-inverse."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, classes: Tensor, n_classes: int) -> Tensor:
        """Return l, () in the dtype of ``f``."""
        ones = torch.ones(len(f), dtype=torch.float64, device=f.device)
        counts = class_counts(classes, n_classes)
        projection = project(gram(f, ones), class_sums(f, classes, n_classes), counts, f.dtype)
        ctx.save_for_backward(projection.gradient(f, classes))
        return projection.value.to(f.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient for ``f``."""
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None


class DSCLLoss(nn.Module):
    """Deep Spectral Clustering Learning as a loss for any training loop, pytorch-metric-learning's included.

    Its value is l in [0, k]; ``backward`` gives the closed-form gradient. Give it balanced batches, larger than the
    embedding is wide: as many columns as rows span everything, and the loss is zero whatever they are. It is
    invariant under every invertible linear map of the columns, so compare embeddings by the cosine after
    whitening (``distspectral evaluate``).

    Communication: none; on several ranks gather embeddings and labels first, as pytorch-metric-learning's
    ``DistributedLossWrapper`` does, or train with ``distspectral run``, which only adds small sums.
    """

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Any = None) -> Tensor:
        """Return the loss, () in the dtype of ``embeddings``.

        Args:
            embeddings: (B, E) float.
            labels: (B,) integers, any values.
            indices_tuple: taken because training loops pass it; a miner's pairs would make another loss, so it must
                be None.

        Raises:
            TooFewClassesError: all rows are of one class.
            ValueError: the shapes do not fit, or a miner's pairs were given.
        """
        classes, n_classes = batch_classes(type(self).__name__, embeddings, labels, indices_tuple)
        loss: Tensor = _ClosedForm.apply(embeddings, classes, n_classes)  # type: ignore[no-untyped-call]
        return loss


def batch_classes(name: str, embeddings: Tensor, labels: Tensor, indices_tuple: Any) -> tuple[Tensor, int]:
    """Return the classes (B,) in [0, C) of what a training loop gives the loss called ``name``, and C.

    Raises:
        ValueError: the shapes do not fit, or a miner's pairs were given.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{name}: embeddings have shape {tuple(embeddings.shape)} and labels {tuple(labels.shape)}; "
            "expected (B, E) and (B,)"
        )
    if indices_tuple is not None:
        raise ValueError(f"{name}: got the pairs of a miner, but the loss is of the whole batch; leave it out")
    found, classes = torch.unique(labels, return_inverse=True)
    return classes, len(found)
