"""The projector's metric asked for each row's class: a softmax over the cosines to the batch's class means.

The projector loss (:mod:`distspectral.spectral.dscl`) compares whole classes with the span of the outputs: a row counts
by its class's sum alone, and a row that is almost right counts like one that is wrong. Here each row u_i, scaled to
length 1, is asked for its class among the batch's C class sums b_c, in the metric that makes the batch isotropic:

    M = (S / n + r I / E)^-1,     logit_ic = u_i' M b_c / (|u_i|_M |b_c|_M t),     l = -mean_i log softmax(logit_i)_y(i)

With S = U'U, whose trace is n, r is the ridge relative to the mean eigenvalue of S / n. At r = 0 the products u' M b
are those of the projector U U^+; towards infinity the logits become plain cosines. A row is left out of the sum of its
own class, b_y(i) - u_i, so that it is found by the others, as it will be when it is searched for; the only row of a
class is not asked.

S, B and n_c are sums over ranks, as for the projector loss, so the class sums are those of all ranks together. The
loss's derivatives by S and B are sums over rows too: one more all-reduce of as many numbers makes the gradient exact.
The cost is that of S and of the products of rows and class sums, B E (E + C). The ridge bounds the eigenvalues from
below, so the metric needs no pseudo-inverse.

Shape letters: B rows of a batch, E embedding width, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from distspectral.spectral.checks import raise_first
from distspectral.spectral.dscl import batch_classes, class_counts, class_sums, enough_classes
from distspectral.spectral.rayleigh import gram

RIDGE = 0.1
TEMPERATURE = 0.1
SHORTEST = 1e-24
"""Squared lengths are taken for no less, so that rows of zeros have cosines of zero."""


def unit_rows(f: Tensor) -> Tensor:
    """Return outputs (B, E) of any float dtype as float64 rows of length 1. Gradient: flows to ``f``."""
    return nn.functional.normalize(f.double(), dim=1)


def metric(gram: Tensor, n_rows: Tensor, ridge: float) -> Tensor:
    """Return M = (S / n + r I / E)^-1, (E, E) float64.

    Args:
        gram: (E, E) float64 S of unit rows, all ranks together.
        n_rows: () n, all ranks together.
        ridge: r, positive.

    Host reads: none; what is not finite goes through.
    """
    width = len(gram)
    identity = torch.eye(width, dtype=gram.dtype, device=gram.device)
    inverse: Tensor = torch.linalg.inv_ex(gram / n_rows + (ridge / width) * identity).inverse
    return inverse


def metric_map(gram: Tensor, n_rows: Tensor, ridge: float) -> Tensor:
    """Return T (E, E) with T T' = M: the cosines of rows times T are those in the metric; arguments as ``metric``'s."""
    factor: Tensor = torch.linalg.cholesky(metric(gram, n_rows, ridge))
    return factor


def n_asked(counts: Tensor) -> Tensor:
    """Return how many rows have others of their class, () float64 and at least 1, by the number (C,) of each class."""
    return torch.where(counts > 1, counts, 0).sum().clamp(min=1)


def total_loss(
    rows: Tensor, classes: Tensor, metric: Tensor, class_sums: Tensor, counts: Tensor, temperature: float
) -> Tensor:
    """Return the sum of -log softmax at their own classes over rows that are not alone in theirs, () float64.

    Args:
        rows: (B, E) float64 unit rows.
        classes: (B,) int64 in [0, C).
        metric: (E, E) float64 M.
        class_sums: (C, E) float64, of all ranks together.
        counts: (C,) rows of each class, of all ranks together; a class of none is never chosen.
        temperature: t, positive.

    Gradient: flows to rows, metric and class sums.
    """
    mapped, own = class_sums @ metric, classes[:, None]
    products = rows @ mapped.T
    of_classes, of_rows = (mapped * class_sums).sum(1), ((rows @ metric) * rows).sum(1)
    with_own = products.gather(1, own)[:, 0]
    of_others = of_classes[classes] - 2 * with_own + of_rows  # the squared length of b - u
    lengths = _length(of_classes).expand_as(products).scatter(1, own, _length(of_others)[:, None])
    products = products.scatter(1, own, (with_own - of_rows)[:, None])
    logits = products / (temperature * _length(of_rows)[:, None] * lengths)
    losses = nn.functional.cross_entropy(logits.masked_fill(counts == 0, -torch.inf), classes, reduction="none")
    return torch.where(counts[classes] > 1, losses, 0).sum()


def _length(squared: Tensor) -> Tensor:
    return squared.clamp(min=SHORTEST).sqrt()


@dataclasses.dataclass(frozen=True)
class Assignment:
    """This rank's part of the loss and of its derivatives, before ranks add them.

    Attributes:
        loss: () float64, sum of the rows' losses over the rows asked on all ranks; differentiable by the rows alone.
        gram_coefficient: (E, E) float64, this rank's derivative with respect to S.
        class_coefficient: (C, E) float64, this rank's derivative with respect to B.
    """

    loss: Tensor
    gram_coefficient: Tensor
    class_coefficient: Tensor


def assign(
    rows: Tensor, classes: Tensor, gram: Tensor, class_sums: Tensor, counts: Tensor, ridge: float, temperature: float
) -> Assignment:
    """Return the loss of this rank's rows, and what it says of the sums of all ranks.

    The gradient of the whole loss at a rank's rows is that of ``loss`` plus those of <dS, S_rank> + <dB, B_rank>, with
    the coefficients dS and dB summed over ranks. Through the inverse, dS = -M (dl/dM) M / n.

    Args:
        rows: (B, E) float64 unit rows of this rank, differentiable.
        classes: (B,) int64 in [0, C).
        gram: (E, E) float64 global S.
        class_sums: (C, E) float64 global B.
        counts: (C,) float64 global n_c.
        ridge: r.
        temperature: t.

    Communication: none. Host reads: none.
    """
    n_rows = counts.sum()
    inverse = metric(gram.detach(), n_rows, ridge).requires_grad_()
    sums = class_sums.detach().requires_grad_()
    loss = total_loss(rows, classes, inverse, sums, counts, temperature) / n_asked(counts)
    by_metric, by_sums = torch.autograd.grad(loss, (inverse, sums), retain_graph=True)
    with torch.no_grad():
        by_gram = -inverse @ (by_metric + by_metric.T) @ inverse / (2 * n_rows)
    return Assignment(loss, by_gram, by_sums)


class ClassSoftmaxLoss(nn.Module):
    """Softmax over class means in the projector's metric, as a loss for any training loop.

    Compare embeddings by the cosine. Give it batches of many classes and a few rows of each.

    Args:
        ridge: of the metric, relative to the mean eigenvalue; positive.
        temperature: of the softmax; positive.

    Communication: none; on several ranks gather embeddings and labels first, as pytorch-metric-learning's
    ``DistributedLossWrapper`` does, or train with ``distspectral run``, which only adds small sums.
    """

    def __init__(self, ridge: float = RIDGE, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.ridge, self.temperature = ridge, temperature

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Any = None) -> Tensor:
        """Return the loss, () in the dtype of ``embeddings``; arguments and errors as :class:`DSCLLoss` has them."""
        classes, n_classes = batch_classes(type(self).__name__, embeddings, labels, indices_tuple)
        counts = class_counts(classes, n_classes)
        raise_first([enough_classes(counts)])
        rows = unit_rows(embeddings)
        inverse = metric(gram(rows, torch.ones_like(rows[:, 0])), counts.sum(), self.ridge)
        sums = class_sums(rows, classes, n_classes)
        loss = total_loss(rows, classes, inverse, sums, counts, self.temperature) / n_asked(counts)
        return loss.to(embeddings.dtype)
