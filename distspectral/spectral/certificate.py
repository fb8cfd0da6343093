"""How wrong learned eigenfunctions are at most, from what is known without labels and without an exact solver.

With r_e = |L f_e - lambda_e f_e| in the Laplacian's inner product, the part of a normalised f_e outside the span of
the P exact functions has a length of at most

    r_e / (mu - lambda_e)          mu: a lower bound of the (P+1)-th eigenvalue

(Davis and Kahan's sine theorem for one vector). Its square is the error of the function; the mean of the errors of
orthonormal functions is the mean sin^2 of the angles between both spans. Where the graph fits into memory, a polish
gives nearly exact functions: an error is then the angle to these, plus what the bound says of themselves.

All functions here are in symmetric form: h = sqrt(mass) f, and the operator is similar to the Laplacian.
Shape letters: N rows, E functions trained, P kept, M known kernel vectors.
References: Davis and Kahan, The rotation of eigenvectors by a perturbation III, SIAM J. Numer. Anal. 1970; Parlett,
The Symmetric Eigenvalue Problem, chapters 10 and 11.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distspectral.spectral.bounds import best_of_block, errors, gain_needed, n_near
from distspectral.spectral.subspace import (
    N_RANDOM,
    UNFILTERED,
    Filters,
    Floats,
    Product,
    Subspace,
    most_passes,
    rayleigh_pairs,
    ritz_pairs,
    subspace_iteration,
)

MEAN_LIMIT = 0.02
"""Mean error above which functions are not trusted. On MNIST's graph .009 cost .005 of the accuracy, .1 cost .14."""
FUNCTION_LIMIT = 0.2
"""Error of one function above which it is not: a missed function has 1, two that share a place have 1/2."""
TOLERANCE = 1e-6
"""Mean error of the polished functions below which they count as exact."""
SHARE = 0.25
"""Of the network's error: that of the polished functions may be as large, in lengths."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is known of the P kept functions; plain values.

    Attributes:
        method: ``polish``, or ``residuals`` where the graph was not brought together.
        converged: whether the polish came to its end; else its passes were spent before, bounds are wider, and a
            function that all trained ones miss may not have been seen, as with ``residuals``.
        passes: products of the polish with the whole graph.
        mean_sin2: bound of the mean sin^2 between the kept functions and the exact ones.
        sin2: (P,) bound of each function's error: the part of its square outside the span of the exact ones.
        n_near: functions of that span when those are added whose eigenvalues are near the P-th; P where there is none.
        near_mean_sin2: bound of the mean error against these.
        near_sin2: (P,) bound of each function's.
        residuals: (P,) |L f - lambda f|.
        standard_errors: (P,) of the residuals where they come from a sample of the rows, else empty.
        eigenvalues: (P,) or more, of the polish; else empty.
        missed: numbers, from 1, of exact functions of which the kept ones hold less than FUNCTION_LIMIT says; polish
            alone knows them.
        weights: (P,) square by which clusters scale each function; empty where there are no clusters yet.
    """

    method: Literal["polish", "residuals"]
    converged: bool
    passes: int
    mean_sin2: float
    sin2: list[float]
    n_near: int
    near_mean_sin2: float
    near_sin2: list[float]
    residuals: list[float]
    standard_errors: list[float]
    eigenvalues: list[float]
    missed: list[int]
    weights: list[float] = dataclasses.field(default_factory=list)

    @property
    def weighed_mean_sin2(self) -> float:
        """Bound of the mean error of functions as clusters weigh them: that of their squared distances."""
        return _weighed(self.mean_sin2, self.sin2, self.weights)

    @property
    def verdict(self) -> Literal["good", "mixed", "bad", "unproven"]:
        """Whether the functions can be trusted; ``mixed``: yes, but for near eigenvalues at the cut.

        The mean error is that of all functions alike or as clusters weigh them, whichever is less; no weight makes up
        for a function that is wrong by itself.
        ``unproven``: neither is known, for the bounds are those of a polish that did not come to its end, or of
        residuals alone.
        """
        if _within(self.weighed_mean_sin2, self.sin2):
            return "good"
        if _within(_weighed(self.near_mean_sin2, self.near_sin2, self.weights), self.near_sin2):
            return "mixed"
        return "bad" if self.converged else "unproven"

    @property
    def doubtful(self) -> list[int]:
        """Numbers, from 1, of kept functions that cannot be trusted; those mixed with near ones can."""
        return [number for number, sin2 in enumerate(self.near_sin2, 1) if sin2 > FUNCTION_LIMIT]

    @property
    def in_words(self) -> str:
        """The verdict in a sentence or two."""
        most, weighed = f"mean sin^2 at most {self.mean_sin2:.2g}", self.weighed_mean_sin2
        if weighed < self.mean_sin2 and self.mean_sin2 > MEAN_LIMIT:
            most += f" ({weighed:.2g} as clusters weigh them)"
        n_kept = len(self.sin2)
        if self.verdict == "good":
            return f"all {n_kept} functions can be trusted: {most}"
        if self.verdict == "mixed":
            last, beyond = numbers([n for n, sin2 in enumerate(self.sin2, 1) if sin2 > MEAN_LIMIT]), self.n_near
            others = f"{n_kept + 1}" if beyond == n_kept + 1 else f"{n_kept + 1} to {beyond}"
            return (
                f"function {last} is mixed with {others}, whose eigenvalue is near ({most}, with these "
                f"{self.near_mean_sin2:.2g}); the functions can be trusted"
            )
        if self.verdict == "unproven":
            ended = "the polish ended early" if self.method == "polish" else "residuals alone show no more"
            return f"not proven: {most}, for {ended}"
        words = f"{most}, above {MEAN_LIMIT}" if weighed > MEAN_LIMIT else most
        if self.doubtful:
            trusted = [number for number in range(1, n_kept + 1) if number not in self.doubtful]
            words += f"; functions to trust: {numbers(trusted) or 'none'} of {n_kept}"
        else:
            words += "; no function is wrong by itself, all together are inexact"
        if self.missed:
            words += f"; exact ones that are missing: {numbers(self.missed)}"
        return words

    def facts(self) -> dict[str, Any]:
        """Return plain values, the verdict included, as they are stored."""
        return dataclasses.asdict(self) | {"verdict": self.verdict, "words": self.in_words}


def as_weighed(facts: Mapping[str, Any], scale: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return the facts of :meth:`Certificate.facts` once it is known how clusters scale each function (P,)."""
    known = {field.name: facts[field.name] for field in dataclasses.fields(Certificate) if field.name in facts}
    return Certificate(**known | {"weights": np.square(np.asarray(scale, np.float64)).tolist()}).facts()


def as_note(
    facts: Mapping[str, Any],
    steps: int,
    stopped_because: str,
    names: Mapping[str, str] | None = None,
    n_clusters: int | None = None,
    section: Literal["train", "distill"] = "train",
) -> str:
    """Return what to tell of functions that cannot be trusted, with the remedy.

    Args:
        facts: of :meth:`Certificate.facts`.
        steps: of the training.
        stopped_because: as trainings say it.
        names: of settings, where they are called otherwise than in a config.
        n_clusters: C, where it is known: clusters lie above all in as many functions.
        section: of that training: descent, or the distillation that followed.
    """
    if "plateau" not in stopped_because:
        remedy = f"Training ended by its budget of {steps:,} steps, before a plateau; raise {section}.max_steps"
    elif section == "distill":
        remedy = (
            "Distillation reached its plateau and functions are inexact; widen the network (network.hidden) or draw "
            "more rows a step (distill.batch_size)"
        )
    elif facts["missed"]:
        remedy = (
            "Training reached its plateau and functions are missing; train more beside those kept "
            "(spectral.oversampling) or widen the network (network.hidden)"
        )
    else:
        remedy = (
            "Training reached its plateau with large residuals; widen the network (network.hidden) or draw more edges "
            "a step (train.batch_size)"
        )
    for name, called in (names or {}).items():
        remedy = remedy.replace(name, called)
    if not facts["converged"]:
        return (
            f"Whether the learned functions are the graph's is {facts['words']}. The truth may be far below this "
            f"bound. {remedy}, if the clusters look wrong."
        )
    note = f"The learned functions are not the graph's: {facts['words']}. {remedy}."
    doubtful = [number for number, sin2 in enumerate(facts["near_sin2"], 1) if sin2 > FUNCTION_LIMIT]
    if n_clusters is not None and doubtful and doubtful[0] > n_clusters:
        note += f" The first {n_clusters}, in which as many clusters lie above all, can be trusted."
    return note


def _weighed(mean: float, each: Sequence[float], weights: Sequence[float]) -> float:
    return min(mean, float(np.average(each, weights=weights))) if weights else mean


def _within(mean: float, each: Sequence[float]) -> bool:
    return mean <= MEAN_LIMIT and max(each, default=0.0) <= FUNCTION_LIMIT


def numbers(found: Sequence[int]) -> str:
    """Return ascending numbers as people write them: 1-3, 5."""
    runs: list[list[int]] = []
    for number in found:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def of_residuals(values: Floats, residuals: Floats, n_kept: int, standard_errors: Floats | None = None) -> Certificate:
    """Return the certificate that residuals alone give.

    Args:
        values: (E,) Ritz values, ascending.
        residuals: (E,) of the Ritz functions.
        n_kept: P.
        standard_errors: (E,) of the residuals; two of them are added.
    """
    spread = np.zeros(len(values)) if standard_errors is None else standard_errors
    safe = residuals + 2 * spread

    def against(n_exact: int) -> Floats:
        beyond = values[n_exact] - safe[n_exact] if n_exact < len(values) else values[n_kept - 1]
        return errors(safe[:n_kept], values[:n_kept], float(beyond))

    near = n_near(values, n_kept)
    plain = against(n_kept)
    wide = np.minimum(against(near), plain)
    return _certificate(
        plain, wide, near, residuals[:n_kept], standard_errors=spread[:n_kept] if spread.any() else None
    )


def of_polish(
    product: Product,
    functions: Floats,
    kernel: Any,
    n_kept: int,
    most: float,
    entries: int,
    guesses: Floats | None = None,
    filters: Filters = UNFILTERED,
    frame: Floats | None = None,
) -> Certificate:
    """Return the certificate against polished functions.

    Args:
        product: with the operator.
        functions: (N, E) trained, in any basis.
        kernel: (N, M) orthonormal, dense or SciPy sparse, all eigenvectors of the value 0, the heaviest first.
        n_kept: P.
        most: no eigenvalue of the operator is larger.
        entries: of the operator, on which the number of passes depends.
        guesses: (N, any) of the eigenvectors, better ones than the trained functions; None: these.
        filters: that the guesses come from, so that what they would have missed is known.
        frame: (E, P) rotation of the trained functions to those judged, orthonormal; None: to the Ritz functions.
    """
    images = product(functions)
    own = ritz_pairs(functions, images) if frame is None else rayleigh_pairs(functions @ frame, images @ frame)
    n_kept = min(n_kept, len(own.values))
    judged = _Judged(own.vectors[:, :n_kept].copy(), own.values[:n_kept], own.residuals[:n_kept])
    kept, residuals = judged.vectors, judged.residuals
    del own, images
    n_known = kernel.shape[1]
    if n_known >= n_kept:
        inside = np.asarray(kernel.T @ kept) ** 2
        plain, wide = (np.maximum(1 - inside[:count].sum(axis=0), 0) for count in (n_kept, n_known))
        missed = [int(n) + 1 for n in np.flatnonzero(1 - inside[:n_kept].sum(axis=1) > FUNCTION_LIMIT)]
        return _certificate(plain, wide, n_known, residuals[:n_kept], np.zeros(n_kept), missed)
    kernel = _dense(kernel)
    guesses = functions if guesses is None else guesses
    n_passes = most_passes(entries * (guesses.shape[1] + N_RANDOM))
    needed = gain_needed(len(functions))
    for state in subspace_iteration(product, guesses, kernel, n_kept - n_known, most, filters=filters):
        converged, certificate = _compared(kernel, state, judged, state.reach(needed))
        if converged or state.filters.n_passes >= n_passes:
            break
    return dataclasses.replace(certificate, converged=converged)


class _Judged(NamedTuple):
    """Functions that are judged: (N, P) orthonormal, their Rayleigh quotients (P,) and residuals (P,)."""

    vectors: Floats
    values: Floats
    residuals: Floats


def _compared(kernel: Floats, state: Subspace, judged: _Judged, reach: float) -> tuple[bool, Certificate]:
    """Return whether the polished functions are exact enough to judge by, and the certificate by them.

    No eigenvector of a value below ``reach`` is thought to be missed.
    """
    kept, residuals = judged.vectors, judged.residuals
    n_kept = kept.shape[1]
    zeros = np.zeros(kernel.shape[1])
    values = np.append(zeros, state.pairs.values)
    exact_residuals = np.append(zeros, state.pairs.residuals)
    inside = np.vstack([kernel.T @ kept, state.pairs.vectors.T @ kept]) ** 2
    near = n_near(values, n_kept) if len(values) > n_kept else n_kept

    def against(n_exact: int) -> tuple[Floats, float, float]:
        apart = np.maximum(1 - inside[:n_exact].sum(axis=0), 0)
        if n_exact >= len(values):  # right if these are all that the rows carry
            return (apart, 0.0, float(apart.mean())) if state.is_whole else (np.ones(n_kept), math.inf, 1.0)
        inexact, beyond = best_of_block(exact_residuals, values, n_exact, reach)
        by_angle = np.minimum(np.sqrt(apart) + math.sqrt(inexact), 1) ** 2
        by_residual = errors(residuals, judged.values, beyond)
        mean = min((math.sqrt(float(apart.sum())) + math.sqrt(inexact)) ** 2 / n_kept, 1.0)
        each = np.minimum(by_angle, by_residual)
        return each, inexact, min(mean, float(each.mean()))

    plain, inexact, mean = against(n_kept)
    wide, _, wide_mean = against(near)
    wide, wide_mean = np.minimum(wide, plain), min(wide_mean, mean)
    enough = inexact <= max(TOLERANCE * n_kept, SHARE**2 * (n_kept - inside[:n_kept].sum()))
    missed = [int(number) + 1 for number in np.flatnonzero(1 - inside[:n_kept].sum(axis=1) > FUNCTION_LIMIT)]
    made = _certificate(plain, wide, near, residuals, values[:near], missed, passes=state.filters.n_passes)
    return bool(enough), dataclasses.replace(made, mean_sin2=mean, near_mean_sin2=wide_mean)


def _dense(kernel: Any) -> Floats:
    return np.asarray(kernel.toarray() if hasattr(kernel, "toarray") else kernel)


def _certificate(
    plain: Floats,
    wide: Floats,
    near: int,
    residuals: Floats,
    eigenvalues: Floats | None = None,
    missed: list[int] | None = None,
    *,
    passes: int = 0,
    standard_errors: Floats | None = None,
) -> Certificate:
    return Certificate(
        method="residuals" if eigenvalues is None else "polish",
        converged=eigenvalues is not None,
        passes=passes,
        mean_sin2=float(plain.mean()),
        sin2=plain.tolist(),
        n_near=near,
        near_mean_sin2=float(wide.mean()),
        near_sin2=wide.tolist(),
        residuals=residuals.tolist(),
        standard_errors=[] if standard_errors is None else standard_errors.tolist(),
        eigenvalues=[] if eigenvalues is None else eigenvalues.tolist(),
        missed=missed or [],
    )
