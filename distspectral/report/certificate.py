"""The panel and the figure that say how far the learned functions are the graph's."""

from __future__ import annotations

from distspectral.report.data import CertificateFacts
from distspectral.report.formats import number
from distspectral.spectral.certificate import FUNCTION_LIMIT, MEAN_LIMIT
from distspectral.text import plural

CAPTION = (
    "Each bar is the part of a learned function that lies outside the exact ones, at most: 0 is exact, 1 is another "
    f"function; above the dashed line, {number(FUNCTION_LIMIT)}, it is not to be trusted. Blue is what remains where "
    "functions of near eigenvalues, which are as smooth, count as right."
)


def certificate_facts(certificate: CertificateFacts) -> list[tuple[str, str]]:
    """Return names and values, the verdict first."""
    if certificate.method == "polish":
        products = plural(certificate.passes, "product")
        against = f"eigenvectors polished from the network's functions, {products} with the graph"
        if not certificate.converged:
            against += "; they did not converge, so that bounds are wide"
    else:
        against = "bounds by residuals at sampled rows; a function that the network misses altogether stays unseen"
    return [
        ("Verdict", certificate.words),
        (f"Mean sin^2 to the exact functions, at most ({number(MEAN_LIMIT)} is good)", number(certificate.mean_sin2)),
        ("Judged against", against),
        ("What it does not see", "errors of the graph: neighbours that say nothing about the data"),
    ]
